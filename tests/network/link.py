# SPDX-License-Identifier: BSD-2-Clause
"""Two network namespaces joined by a veth pair, with programs in them: "near" and "far". Each side is either on Viaduct,
with a viaductd of its own, or plain.

A Link is one test's: it makes the namespaces and ends everything in them. carried() proves who carried what happened:
on a side under Viaduct the kernel's TCP and UDP must have stayed silent while frames went over its interfaces.
"""
import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import time

import harness
import machine
from harness import check

VIADUCTD = os.path.join(harness.BUILD, "viaductd")
SIDES = {"near": 1, "far": 2}
LEAST = 200  # bytes: more than the kernel's ARP


def inhabitants(side):
    """The processes in the side's namespace, but for the one that holds it."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if (entry.isdigit() and int(entry) != side.holder.pid and
                    os.readlink(f"/proc/{entry}/ns/net") == os.readlink(f"/proc/{side.holder.pid}/ns/net")):
                found.append(int(entry))
    return found


def finishers(side):
    """Those who finish the connections of the dead, whether viaductd lives or not."""
    found = []
    for pid in inhabitants(side):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                if comm.read().strip() == "viaductd-finish":
                    found.append(pid)
    return found


LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def within(side):
    """This thread is in the side's namespace."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{side.holder.pid}/ns/net", os.O_RDONLY)
    try:
        check(LIBC.setns(there, CLONE_NEWNET) == 0, "setns")
        yield
    finally:
        LIBC.setns(home, CLONE_NEWNET)
        os.close(home)
        os.close(there)


def status(side):
    """(stacks, orphans, filters) of the side's viaductd."""
    with within(side):
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with asking:
        asking.settimeout(5)
        asking.connect("\0viaduct1/daemon")
        asking.send(struct.pack("<HHIIi", 7, 1, 16, 1, 0))
        return struct.unpack_from("<III", asking.recv(2048), 20)


class Side:
    """A namespace, held by a sleeping process."""

    def __init__(self, name, accelerated):
        self.name = name
        self.accelerated = accelerated
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.daemon = None
        end = time.monotonic() + 20
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            check(time.monotonic() < end, "no namespace was made")
            time.sleep(0.01)

    def inside(self, command):
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"] + [str(part) for part in command]

    def ip(self, *words):
        machine.run(self.inside(["ip"] + list(words)), 10)

    def run(self, *command):
        machine.run(self.inside(command), 10)

    def need(self, *words):
        try:
            self.ip(*words)
        except machine.Failed as failure:
            if "Unknown device type" in str(failure):
                raise harness.Skip("this kernel has no such devices") from None

    def table(self, table):
        """One of /proc/net whose rows come in pairs, names and values."""
        with open(f"/proc/{self.holder.pid}/net/{table}", encoding="ascii") as lines:
            rows = [line.split() for line in lines]
        return {names[0] + name: int(value) for names, values in zip(rows[::2], rows[1::2])
                for name, value in zip(names[1:], values[1:])}

    def counters(self):
        """What the kernel's TCP and UDP have sent and received."""
        found = self.table("snmp")
        with open(f"/proc/{self.holder.pid}/net/snmp6", encoding="ascii") as table:
            udp6 = {line.split()[0]: int(line.split()[1]) for line in table}
        return (found["Tcp:InSegs"] + found["Tcp:OutSegs"] + found["Udp:InDatagrams"] + found["Udp:OutDatagrams"] +
                udp6["Udp6InDatagrams"] + udp6["Udp6OutDatagrams"])

    def everything(self):
        """All that the kernel counts of its own, to tell what happened where nothing should have."""
        return {name: value for name, value in (self.table("snmp") | self.table("netstat")).items()
                if name.startswith(("Tcp", "Udp:", "Icmp:"))}

    def crossed(self):
        """Bytes that have come and gone over interfaces but the stacks' own veths, whoever sent them. Unlike a stack's
        counters they stay when a program has ended."""
        with open(f"/proc/{self.holder.pid}/net/dev", encoding="ascii") as table:
            rows = [line.replace(":", " ").split() for line in table][2:]
        return sum(int(row[1]) + int(row[9]) for row in rows if row[0] != "lo" and not row[0].startswith("viaduct"))

    def resets(self):
        return machine.counter("Tcp", "OutRsts", f"/proc/{self.holder.pid}/net")

    def listening(self, port, udp=False):
        return machine.listening(port, udp, f"/proc/{self.holder.pid}/net")

    def await_connection(self, port):
        """Until a connection of the kernel's, on this side, to or from the port stands."""
        end = time.monotonic() + 30
        while True:
            with open(f"/proc/{self.holder.pid}/net/tcp", encoding="ascii") as table:
                rows = [line.split() for line in table]
            if any(row[3] == "01" and f":{port:04X}" in row[1] + row[2] for row in rows):
                return
            check(time.monotonic() < end, f"no connection with port {port} on the {self.name} side")
            time.sleep(0.02)

    def start_daemon(self):
        log = open(os.path.join("/mnt", f"viaductd-{self.name}"), "wb")
        self.daemon = subprocess.Popen(self.inside([VIADUCTD]), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        end = time.monotonic() + 30
        while True:
            with open(f"/proc/{self.holder.pid}/net/unix", encoding="ascii") as table:
                if any("@viaduct1/daemon" in line and line.split()[3] == "00010000" for line in table):
                    return  # it listens
            check(time.monotonic() < end and self.daemon.poll() is None, f"viaductd did not start: {self.said()}")
            time.sleep(0.01)

    def said(self):
        with open(os.path.join("/mnt", f"viaductd-{self.name}"), encoding="utf-8", errors="replace") as log:
            return log.read()[-500:]

    def end(self):
        """With all who are there: those who finish connections would go on until their peers are given up, and one that
        has just been forked does not bear that name yet."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
            self.daemon.wait()
        end = time.monotonic() + 10
        while (left := inhabitants(self)) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for process in (self.daemon, self.holder):
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


class Link:
    """accelerated: "near", "far", "both", or "" for none; `far` is where servers run in the cases."""

    last_port = 20000

    def __init__(self, test, accelerated, mtu=1500, vlan=0, queues=1, settings=(), bond=False):
        self.test = test
        self.sides = {}
        try:
            self.make(accelerated, mtu, vlan, queues, settings, bond)
        except BaseException:
            self.end()
            raise

    def make(self, accelerated, mtu, vlan, queues, settings, bond):
        for name in SIDES:
            self.sides[name] = Side(name, accelerated in (name, "both"))
        near, far = self.sides["near"], self.sides["far"]
        for side in self.sides.values():  # its addresses may be used at once
            machine.run(side.inside(["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]), 10)
            for setting in settings:
                machine.run(side.inside(["sysctl", "-qw", setting]), 10)
        many = ["mtu", str(mtu), "numrxqueues", str(queues), "numtxqueues", str(queues)]
        near.ip("link", "add", "wire0", *many, "type", "veth", "peer", "name", "wire0", *many, "netns",
                str(far.holder.pid))
        for name, side in self.sides.items():
            side.ip("link", "set", "lo", "up")
            device = "wire0"
            if bond:
                self.make_bond(side)
                device = "bond0"
            side.ip("link", "set", device, "up")
            if vlan:
                side.need("link", "add", "link", "lo", "name", "trial", "type", "vlan", "id", "1")
                side.ip("link", "add", "link", device, "name", "tagged", "type", "vlan", "id", str(vlan))
                device = "tagged"
                side.ip("link", "set", device, "up")
            side.ip("address", "add", f"10.9.0.{SIDES[name]}/24", "dev", device)
            side.ip("address", "add", f"fd09::{SIDES[name]}/64", "dev", device, "nodad")
        for side in self.sides.values():
            if side.accelerated:
                side.start_daemon()

    def make_bond(self, side):
        """Of wire0 and a second wire, made with the first side."""
        side.need("link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "50")
        if side is self.sides["near"]:
            side.ip("link", "add", "wire1", "type", "veth", "peer", "name", "wire1", "netns", str(self.sides["far"].holder.pid))
        for wire in ("wire0", "wire1"):
            side.ip("link", "set", wire, "down")
            side.ip("link", "set", wire, "master", "bond0")
            side.ip("link", "set", wire, "up")

    def address(self, side, family=4):
        return f"10.9.0.{SIDES[side]}" if family == 4 else f"fd09::{SIDES[side]}"

    def port(self):
        Link.last_port += 1
        return Link.last_port

    def command(self, side, command, knobs=()):
        where = self.sides[side]
        if where.accelerated:
            settings = [part for knob in knobs for part in ("--set", knob)]
            command = [harness.VIADUCT, "run"] + settings + ["--"] + list(command)
        return where.inside(command)

    def start(self, side, command, port=None, udp=False, knobs=()):
        program = machine.Program(self.command(side, command, knobs),
                                  self.test.path(f"program-{len(self.test.programs)}.log"))
        self.test.programs.append(program)
        end = time.monotonic() + 30
        while port and not self.sides[side].listening(port, udp):
            check(program.process.poll() is None, f"the server ended: {program.output()}")
            check(time.monotonic() < end, f"the server does not listen: {program.output()}")
            time.sleep(0.02)
        time.sleep(0.1)
        return program

    def run(self, side, command, seconds=30, knobs=()):
        return machine.run(self.command(side, command, knobs), seconds)

    @contextlib.contextmanager
    def carried(self, stray=0):
        """What happens inside is carried by the stacks of the accelerated sides; stray: segments and datagrams that the
        kernel may have seen nevertheless."""
        before = {name: (side.counters(), side.crossed(), side.everything()) for name, side in self.sides.items()}
        yield
        for name, side in self.sides.items():
            counted, crossed, all_before = before[name]
            seen, crossed = side.counters() - counted, side.crossed() - crossed
            if side.accelerated:
                told = {what: now - all_before.get(what, 0) for what, now in side.everything().items()
                        if now != all_before.get(what)}
                check(seen <= stray, f"not accelerated: the kernel of the {name} side saw {seen} segments: {told}")
                check(crossed > LEAST, f"hardly anything came or went on the {name} side: {crossed} bytes")
            else:
                check(seen > 0, f"the kernel of the {name} side saw nothing")

    def end(self):
        for program in self.test.programs:
            program.stop()
        for side in self.sides.values():
            side.end()


@contextlib.contextmanager
def linked(test, accelerated, **how):
    link = Link(test, accelerated, **how)
    try:
        yield link
    except (AssertionError, machine.Failed) as error:
        said = "; ".join(side.said() for side in link.sides.values() if side.daemon)
        raise AssertionError(f"{error} (accelerated: {accelerated or 'none'}, {how}; viaductd: {said})") from error
    finally:
        link.end()
