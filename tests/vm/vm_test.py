# SPDX-License-Identifier: BSD-2-Clause
"""Against a kernel in a virtual machine: as a peer behind a tap, whose netem loses, reorders, delays, doubles and spoils; and as
the machine that Viaduct runs on (Debian's own kernel, which is older than the network path needs).
"""
import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import harness
import machine
from harness import case, check, need

HERE = os.path.dirname(os.path.abspath(__file__))
NETWORK = os.path.join(HERE, "..", "network")
STREAM = [sys.executable, "-B", os.path.realpath(os.path.join(NETWORK, "stream.py"))]
KERNEL = os.environ.get("TEST_VM", os.path.join(HERE, "..", "..", "build-vm"))
VIADUCTD = os.path.join(harness.BUILD, "viaductd")
US, GUEST, CONTROL = "10.8.0.1", "10.8.0.2", 5999
SIZE = 400000
NETEM = {
    "clean": None,
    "loss": "loss 2%",
    "reordering": "delay 8ms reorder 75%",
    "delay": "delay 20ms 8ms",
    "all": "delay 5ms 2ms loss 1% duplicate 1% corrupt 0.5% reorder 80%",
}


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

    def netem(self, setting):
        if setting:
            self.ask("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", *setting.split())

    def end(self):
        print('"end"', file=self.stream, flush=True)
        self.connection.close()


@contextlib.contextmanager
def daemon(test):
    program = machine.Program([VIADUCTD], test.path("viaductd.log"))
    test.programs.append(program)
    end = time.monotonic() + 5
    while True:
        with open("/proc/net/unix", encoding="ascii") as table:
            if "@viaduct1/daemon" in table.read():
                break
        check(program.process.poll() is None and time.monotonic() < end, f"viaductd: {program.output()}")
        time.sleep(0.02)
    yield


def exchange(test, guest, name):
    """Both ways, as client and as server; every byte compared, and none carried by our kernel."""
    port = test.port()
    guest.ask("&", *STREAM, "serve", GUEST, port, 1)
    guest.ask("sh", "-c", f"for i in $(seq 50); do ss -Hltn sport = :{port} | grep -q . && exit 0; sleep 0.1; done; exit 1")
    before = machine.counter("Tcp", "OutSegs")
    test.run(STREAM + ["fetch", GUEST, port, 1, SIZE], 90)
    sent = machine.counter("Tcp", "OutSegs") - before
    check(sent <= harness.STRAY_SEGMENTS, f"{name}: our kernel sent {sent} segments")  # for the control connection
    port = test.port()
    server = test.start(STREAM + ["serve", US, port, 1], port)
    guest.ask(*STREAM, "fetch", US, port, 1, SIZE)
    test.finish(server)


@case
def a_peer_whose_wire_loses_delays_and_spoils(test):
    need("tc")
    machine.run(["ip", "tuntap", "add", "tap0", "mode", "tap"], 10)
    machine.run(["ip", "address", "add", f"{US}/24", "dev", "tap0"], 10)
    machine.run(["ip", "link", "set", "tap0", "up"], 10)
    command = (f"modprobe -a sch_netem && ip address add {GUEST}/24 dev eth0 && ip link set eth0 up && "
               f"exec {sys.executable} -B {HERE}/guest.py {GUEST} {CONTROL}\n")
    tap = ["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net0"]
    with booted(test, command, 400, *tap) as program, daemon(test):
        guest = Guest(program)
        for name, setting in NETEM.items():
            guest.netem(setting)
            began = time.monotonic()
            exchange(test, guest, name)
            print(f"# {name}: {time.monotonic() - began:.1f} s", flush=True)
        guest.end()
        program.process.wait(60)


@case
def an_older_kernel_serves_and_check_says_why(test):
    """Before Linux 6.4 a program can't map the rings of a socket that viaductd has bound: the kernel must serve all, also a
    VLAN's, with every byte, and check must say so."""
    cases = ["python_stream_both_sides_ipv4", "python_stream_vlan"]
    viaduct = os.path.realpath(harness.VIADUCT)
    command = ("modprobe -a veth 8021q; "
               f"{viaduct} check >/shared/check; echo status $? >>/shared/check; "
               f"TEST_BUILD={os.path.realpath(harness.BUILD)} PYTHONPATH={HERE}/../lib {sys.executable} -B "
               f"{os.path.realpath(NETWORK)}/programs_test.py {' '.join(cases)} >/shared/out 2>&1\n")
    with booted(test, command, 300) as program:
        program.process.wait(320)

        def shared(name):
            try:
                with open(test.path("shared/" + name), encoding="utf-8") as text:
                    return text.read()
            except OSError:
                return ""

        checked, said = shared("check"), shared("out")
        check("does not let a program map the rings" in checked and "status 1" in checked,
              f"check said {checked}\n{program.output()}")
        # every byte came back, and what those tests complain of is who carried it
        check(said.count("not accelerated: the kernel of") == len(cases), f"{said}\n{program.output()}")


harness.main()
