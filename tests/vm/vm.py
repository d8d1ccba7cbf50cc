# SPDX-License-Identifier: BSD-2-Clause
"""A machine with Debian's kernel, for tests: booted() runs a shell script in it, Guest speaks with guest.py there."""
import contextlib
import json
import os
import socket
import time

import harness
import machine
from harness import check, need

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL = os.environ.get("TEST_VM", os.path.join(HERE, "..", "..", "build-vm"))
GUEST, CONTROL = "10.8.0.2", 5999


@contextlib.contextmanager
def booted(test, command, seconds, *qemu):
    """A machine that runs the command (a shell script); ends it."""
    shared = test.path("shared")
    os.makedirs(shared)
    with open(os.path.join(shared, "command"), "w", encoding="ascii") as script:
        script.write(command)
    need("qemu-system-x86_64", "busybox", "cpio")
    if not os.path.exists(os.path.join(KERNEL, "version")):
        raise harness.Skip("no kernel for a virtual machine was fetched")
    program = machine.Program([os.path.join(HERE, "boot"), KERNEL, shared, str(seconds), *qemu], test.path("console"))
    test.programs.append(program)
    yield program


class Guest:
    """The peer's control connection."""

    def __init__(self, program):
        end = time.monotonic() + 120
        while True:
            check(program.process.poll() is None and time.monotonic() < end, f"it did not boot: {program.output()}")
            try:
                self.connection = socket.create_connection((GUEST, CONTROL), timeout=2)
                break
            except OSError:
                time.sleep(0.3)
        self.connection.settimeout(90)
        self.stream = self.connection.makefile("rw")

    def ask(self, *words):
        print(json.dumps([str(word) for word in words]), file=self.stream, flush=True)
        status, output = json.loads(self.stream.readline())
        check(status == 0, f"in the machine, {' '.join(str(word) for word in words)}: {output}")
        return output

    def segments(self):
        """What the machine's kernel has sent."""
        names, values = self.ask("grep", "^Tcp:", "/proc/net/snmp").splitlines()
        return int(values.split()[names.split().index("OutSegs")])

    def netem(self, setting):
        if setting:
            self.ask("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", *setting.split())

    def end(self):
        print('"end"', file=self.stream, flush=True)
        self.connection.close()
