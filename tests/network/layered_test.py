# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces on top of others: VLANs (802.1Q), bonds (active-backup), a VLAN over a bond. TCP and UDP over them, every byte
compared, carried by Viaduct; a bond's devices fail in turn while data flows. Skipped where the kernel has no such interfaces:
tests/vm runs them too.
"""
import os
import sys
import time

import harness
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
STREAM = [sys.executable, "-B", os.path.join(HERE, "stream.py")]
SIZE = 400000
PLAIN_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]  # gets a veth of his own, and is checked


def exchange(link, family, prefix=()):
    """TCP, then UDP, from near to far and back."""
    port, address = link.port(), link.address("far", family)
    link.start("far", [*prefix, *STREAM, "serve", address, port, 1], port)
    link.start("far", [*prefix, *STREAM, "reflect", address, port], port, udp=True)
    with link.carried(stray=10):  # a datagram that finds the neighbour unknown is the kernel's
        link.run("near", [*prefix, *STREAM, "fetch", address, port, 1, SIZE], 60)
        link.run("near", [*prefix, *STREAM, "ask", address, port, 100], 60)


def add(name, accelerated, prefix=(), **how):
    def function(test):
        with linked(test, accelerated, **how) as link:
            for family in (4, 6):
                exchange(link, family, prefix)
    function.__name__ = name
    case(function)


def tagged_by_the_wire(test, accelerated):
    """The peer's kernel leaves the tag to its device, which puts it into the frames."""
    with linked(test, accelerated, vlan=7) as link:
        for side in link.sides.values():
            side.run("ethtool", "-K", "wire0", "txvlan", "off")
        for family in (4, 6):
            exchange(link, family)


def add_tagged(accelerated, who):
    def function(test):
        tagged_by_the_wire(test, accelerated)
    function.__name__ = f"vlan_tags_in_frames_{who}"
    case(function)


for where, who in (("both", "both_sides"), ("near", "client"), ("far", "server")):
    add(f"vlan_{who}", where, vlan=7)
    add_tagged(where, who)
    add(f"bond_{who}", where, bond=True)
    add(f"vlan_over_bond_{who}", where, bond=True, vlan=7)
add("vlan_behind_a_veth", "both", PLAIN_USER, vlan=7)
add("vlan_over_bond_behind_a_veth", "both", PLAIN_USER, bond=True, vlan=7)


def active(link):
    with open(f"/proc/{link.sides['near'].holder.pid}/net/bonding/bond0", encoding="ascii") as told:
        return next(line.split()[-1] for line in told if line.startswith("Currently Active Slave"))


def fail_over(link, to):
    """The active device loses its carrier, at both ends; the other takes over."""
    other = {"wire0": "wire1", "wire1": "wire0"}[to]
    link.sides["near"].ip("link", "set", to, "up")
    time.sleep(0.5)
    link.sides["near"].ip("link", "set", other, "down")
    time.sleep(1.5)
    check(active(link) == to, f"{active(link)} is active, not {to}")


@case
def a_bond_fails_over_in_mid_transfer(test):
    """Both ends on Viaduct, then each alone: what is on its way meanwhile may be lost, and is sent again."""
    for accelerated in ("both", "near", "far"):
        with linked(test, accelerated, bond=True) as link:
            port, address = link.port(), link.address("far")
            link.start("far", STREAM + ["serve", address, port, 2], port)
            with link.carried():
                pacing = link.start("near", STREAM + ["pace", address, port, 12])
                for to in ("wire1", "wire0", "wire1"):
                    time.sleep(1)
                    fail_over(link, to)
                link.run("near", STREAM + ["fetch", address, port, 1, SIZE], 60)
                rounds = int(test.finish(pacing, 60))
            check(rounds > 100, f"{rounds} rounds in 12 s")


harness.main()
