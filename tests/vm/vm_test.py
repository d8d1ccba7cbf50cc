# SPDX-License-Identifier: BSD-2-Clause
"""A peer in a virtual machine, behind a tap, whose netem loses, reorders, delays, doubles and spoils: Linux's own TCP there, then
Viaduct there too, on Debian's kernel.
"""
import contextlib
import os
import sys
import time

import harness
import machine
from harness import case, check, need
from vm import CONTROL, GUEST, HERE, Guest, booted

STREAM = [sys.executable, "-B", os.path.realpath(os.path.join(HERE, "..", "network", "stream.py"))]
VIADUCT = os.path.realpath(harness.VIADUCT)
VIADUCTD = os.path.realpath(os.path.join(harness.BUILD, "viaductd"))
US = "10.8.0.1"
SIZE = 400000
NETEM = {
    "clean": None,
    "loss": "loss 2%",
    "reordering": "delay 8ms reorder 75%",
    "delay": "delay 20ms 8ms",
    "all": "delay 5ms 2ms loss 1% duplicate 1% corrupt 0.5% reorder 80%",
}


@contextlib.contextmanager
def daemon(test):
    program = machine.Program([VIADUCTD], test.path("viaductd.log"))
    test.programs.append(program)
    end = time.monotonic() + 5
    while True:
        with open("/proc/net/unix", encoding="ascii") as table:
            if any("@viaduct1/daemon" in line and line.split()[3] == "00010000" for line in table):
                break  # it listens
        check(program.process.poll() is None and time.monotonic() < end, f"viaductd: {program.output()}")
        time.sleep(0.02)
    yield


@contextlib.contextmanager
def peer(test):
    """A machine with eth0 at the other end of our tap0, and viaductd here."""
    need("tc")
    machine.run(["ip", "tuntap", "add", "tap0", "mode", "tap"], 10)
    machine.run(["ip", "address", "add", f"{US}/24", "dev", "tap0"], 10)
    machine.run(["ip", "link", "set", "tap0", "up"], 10)
    command = (f"modprobe -a sch_netem veth && ip address add {GUEST}/24 dev eth0 && ip link set eth0 up && "
               f"exec {sys.executable} -B {HERE}/guest.py {GUEST} {CONTROL}\n")
    tap = ["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net0"]
    try:
        with booted(test, command, 400, *tap) as program, daemon(test):
            guest = Guest(program)
            yield guest
            guest.end()
            program.process.wait(60)
    finally:
        machine.run(["ip", "link", "delete", "tap0"], 10)


def exchange(test, guest, name, prefix=()):
    """Both ways, as client and as server; every byte compared, and none carried by our kernel. prefix: how programs are started
    there; with one, by theirs neither."""
    port = test.port()
    guest.ask("&", *prefix, *STREAM, "serve", GUEST, port, 1)
    guest.ask("sh", "-c", f"for i in $(seq 50); do ss -Hltn sport = :{port} | grep -q . && exit 0; sleep 0.1; done; exit 1")
    before, there = machine.counter("Tcp", "OutSegs"), guest.segments()
    test.run(STREAM + ["fetch", GUEST, port, 1, SIZE], 90)
    sent = machine.counter("Tcp", "OutSegs") - before
    check(sent <= harness.STRAY_SEGMENTS, f"{name}: our kernel sent {sent} segments")  # for the control connection
    port = test.port()
    server = test.start(STREAM + ["serve", US, port, 1], port)
    guest.ask(*prefix, *STREAM, "fetch", US, port, 1, SIZE)
    test.finish(server)
    sent = guest.segments() - there
    check(not prefix or sent <= harness.STRAY_SEGMENTS, f"{name}: the machine's kernel sent {sent} segments")


def exchanges(test, guest, prefix=()):
    for name, setting in NETEM.items():
        guest.netem(setting)
        began = time.monotonic()
        exchange(test, guest, name, prefix)
        print(f"# {name}: {time.monotonic() - began:.1f} s", flush=True)


@case
def a_peer_whose_wire_loses_delays_and_spoils(test):
    with peer(test) as guest:
        exchanges(test, guest)


@case
def viaduct_at_both_ends_of_such_a_wire(test):
    """First on the machine's NIC (virtio-net) itself, which netem does not touch; then as a user without rights, whose frames
    leave through it."""
    run = [VIADUCT, "run", "--"]
    with peer(test) as guest:
        guest.ask("&", VIADUCTD)
        guest.ask("sh", "-c", "for i in $(seq 50); do grep -q @viaduct1/daemon /proc/net/unix && exit 0; sleep 0.1; done; exit 1")
        exchange(test, guest, "its NIC", run)
        exchanges(test, guest, run + ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])


harness.main()
