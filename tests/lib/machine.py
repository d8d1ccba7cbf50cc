# SPDX-License-Identifier: BSD-2-Clause
"""The namespace a run lives in, the programs in it, and what the kernel and Viaduct say was carried.

enter() goes into namespaces of its own (tests/lib/contain): programs, sockets and temporary files vanish with them,
also when anything here is killed with SIGKILL.
"""
import json
import os
import signal
import subprocess
import sys
import time

CONTAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "contain")


def enter():
    """Run this very command again in namespaces of its own; returns only there."""
    if "TEST_CONTAINED" not in os.environ:
        os.execv(CONTAIN, [CONTAIN, sys.executable] + sys.argv)


def counter(protocol, name, net="/proc/net"):
    """One value of /proc/net/snmp, of this network namespace, or of the one that net shows."""
    with open(f"{net}/snmp", encoding="ascii") as table:
        rows = [line.split() for line in table if line.startswith(protocol + ":")]
    return int(rows[1][rows[0].index(name)])


def kernel_segments():
    """TCP segments and UDP datagrams that the kernel's own stack has sent here."""
    return counter("Tcp", "OutSegs") + counter("Udp", "OutDatagrams")


def kernel_refusals():
    """Those of them that asked for a connection and were refused, or refused it: programs ask before anybody listens."""
    return counter("Tcp", "AttemptFails") + counter("Tcp", "OutRsts")


def listening(port, udp=False, net="/proc/net"):
    """True once the kernel shows a socket listening (UDP: bound) on the port, here or where net shows."""
    state = "07" if udp else "0A"
    for suffix in ("", "6"):
        with open(f"{net}/{'udp' if udp else 'tcp'}{suffix}", encoding="ascii") as table:
            for line in table:
                fields = line.split()
                if fields[1].endswith(f":{port:04X}") and fields[3] == state:
                    return True
    return False


class Failed(Exception):
    """A run that gave no figure, with the reason."""


class Program:
    """A server in the background, with its output kept for the message when it fails."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            start_new_session=True)

    def wait_for(self, port, udp=False, seconds=10):
        """Until it listens."""
        end = time.monotonic() + seconds
        while not listening(port, udp):
            if self.process.poll() is not None:
                raise Failed(f"the server ended with {self.process.returncode}: {self.output()}")
            if time.monotonic() > end:
                raise Failed(f"the server did not listen on port {port}: {self.output()}")
            time.sleep(0.02)
        time.sleep(0.05)

    def whole_output(self):
        with open(self.log, "rb") as text:
            return text.read().decode(errors="replace")

    def output(self):
        """The end of it, for messages."""
        return self.whole_output()[-600:].strip()

    def stop(self):
        for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(patience)
                if number == signal.SIGKILL or not self.group_lives():
                    return
            except subprocess.TimeoutExpired:
                continue

    def group_lives(self):
        try:
            os.killpg(self.process.pid, 0)
            return True
        except ProcessLookupError:
            return False


def run(command, seconds):
    """A client to its end. Its output, or Failed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Failed(f"no end after {seconds:.0f} s: {' '.join(command)}") from None
    if process.returncode != 0:
        text = (err + out).decode(errors="replace")[-600:].strip()
        raise Failed(f"ended with {process.returncode}: {' '.join(command)}: {text}")
    return out.decode(errors="replace")


def viaduct_frames(viaduct):
    """Frames sent and received over each vNIC of each stack here, by `viaduct stat --json`."""
    try:
        stacks = json.loads(run([viaduct, "stat", "--json"], 10))["stacks"]
        return {(stack["pid"], vnic["index"], vnic["peer_pid"]): vnic["tx_frames"] + vnic["rx_frames"]
                for stack in stacks for vnic in stack["vnics"]}
    except (ValueError, LookupError, TypeError) as error:
        raise Failed(f"viaduct stat --json has not what is needed: {error!r}") from None
