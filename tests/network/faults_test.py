# SPDX-License-Identifier: BSD-2-Clause
"""A network that changes, loses and delays while data flows both ways between a program on Viaduct and a plain one: every
byte arrives once and in order, or the connection ends as the kernel's would."""
import os
import re
import sys
import time

import harness
from harness import case, check
from link import Link, Side, linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]
PUMP = PYTHON + [os.path.join(HERE, "pump.py")]
BAD_WIRE = os.path.join(harness.BUILD, "tests", "network", "bad_wire")


class Routed(Link):
    """near - middle - far: the middle is a router of the kernel's, or a bad wire."""

    def __init__(self, test, accelerated, wire=()):
        self.test = test
        self.sides = {}  # what exists is ended, whatever fails
        self.middle = Side("middle", False)
        for name in ("near", "far"):
            self.sides[name] = Side(name, accelerated in (name, "both"))
        for number, (name, side) in enumerate(self.sides.items(), 1):
            side.ip("link", "add", "wire0", "type", "veth", "peer", "name", name, "netns", str(self.middle.holder.pid))
            side.ip("link", "set", "lo", "up")
            side.ip("link", "set", "wire0", "up")
            self.middle.ip("link", "set", name, "up")
            if not wire:
                self.route(number, name, side)
            else:
                # one segment is one frame, or a loss would be one of forty
                side.ip("link", "set", "wire0", "gso_max_segs", "1")
                side.ip("address", "add", f"10.9.0.{number}/24", "dev", "wire0")
                side.ip("address", "add", f"fd09::{number}/64", "dev", "wire0", "nodad")
                for setting in ("ipv4/neigh/wire0/mcast_solicit", "ipv6/neigh/wire0/mcast_solicit",
                                "ipv4/neigh/wire0/ucast_solicit", "ipv6/neigh/wire0/ucast_solicit"):
                    # three that are lost one after the other end a connection: that is the wire's dice, not what is tested
                    side.run("sh", "-c", f"echo 20 >/proc/sys/net/{setting}")
        self.routed = not wire
        if wire:
            self.cross = self.start_wire(wire)
        else:
            for sysctl in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                self.middle_run(["sh", "-c", f"echo 1 >/proc/sys/net/{sysctl}"])
        for side in self.sides.values():
            if side.accelerated:
                side.start_daemon()

    def route(self, number, name, side):
        other = 3 - number
        for net, bits, mark in ((f"10.9.{number}.", 24, ""), (f"fd09:{number}::", 64, "nodad")):
            side.ip("address", "add", f"{net}{number}/{bits}", "dev", "wire0", *mark.split())
            self.middle.ip("address", "add", f"{net}9/{bits}", "dev", name, *mark.split())
            there = net.replace(f".{number}.", f".{other}.").replace(f":{number}:", f":{other}:")
            side.ip("route", "add", f"{there}{'0' if bits == 24 else ''}/{bits}", "via", f"{net}9")

    def address(self, side, family=4):
        number = 1 if side == "near" else 2
        net = number if self.routed else 0
        if family == 4:
            return f"10.9.{net}.{number}"
        return f"fd09:{net}::{number}" if net else f"fd09::{number}"

    def middle_run(self, command):
        return harness.machine.run(self.middle.inside(command), 10)

    def start_wire(self, options):
        program = harness.machine.Program(self.middle.inside([BAD_WIRE, "near", "far", *options]),
                                          self.test.path("bad_wire.log"))
        self.test.programs.append(program)
        until(lambda: "ready" in program.output(), 20, program.output)
        return program

    def end(self):
        super().end()
        self.middle.end()


def until(condition, seconds, text):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, text())
        time.sleep(0.02)


class Flow:
    """Data that flows through an echoing server on the far side for some seconds."""

    def __init__(self, link, seconds, family=4, address=None, piece=20000, client="near", server="far", knobs=()):
        port = link.port()
        address = address or link.address(server, family)
        self.server = link.start(server, STREAM + ["serve", address, port, 1], port, knobs=knobs)
        self.client = link.start(client, PUMP + [address, port, str(seconds), str(piece)], knobs=knobs)
        until(lambda: "started" in self.client.output(), 70, self.client.output)
        time.sleep(0.3)

    def end(self):
        """All came back, however long that takes (pump.py says when nothing comes). (Bytes, the longest silence.)"""
        until(lambda: self.client.process.poll() is not None, 300,
              lambda: f"the client still runs: {self.client.output()}")
        check(self.client.process.returncode == 0, self.client.output())
        got, silence = self.client.output().split()[-2:]
        check(int(got) > 100000, f"only {got} bytes")
        return int(got), float(silence)


def routed(test, accelerated="near", wire=()):
    link = None
    try:
        link = Routed(test, accelerated, wire)
        yield link
    finally:
        if link:
            link.end()


# --- the network changes ---


@case
def a_route_that_changes_takes_the_connection_along(test):
    with linked(test, "near") as link:
        near, far = link.sides["near"], link.sides["far"]
        near.ip("link", "add", "wire1", "type", "veth", "peer", "name", "wire1", "netns", str(far.holder.pid))
        for number, side in enumerate((near, far), 1):
            side.ip("address", "add", f"10.10.0.{number}/24", "dev", "wire1")
            side.ip("link", "set", "wire1", "up")
        far.ip("address", "add", "10.99.0.1/32", "dev", "lo")
        near.ip("route", "add", "10.99.0.1", "via", "10.9.0.2")
        flow = Flow(link, 2, address="10.99.0.1")
        near.ip("route", "replace", "10.99.0.1", "via", "10.10.0.2")
        time.sleep(0.3)
        before = received(far, "wire1")
        flow.end()
        check(received(far, "wire1") - before > 20, "nothing went the new way")


def received(side, device):
    out = harness.machine.run(side.inside(["ip", "-s", "-o", "link", "show", device]), 5)
    return int(re.search(r"RX:.*?\\\s+(\d+)\s+(\d+)", out).group(2))


@case
def a_neighbour_that_changes_its_address_is_found_again(test):
    with linked(test, "near") as link:
        flow = Flow(link, 2)
        link.sides["far"].ip("link", "set", "wire0", "address", "02:00:00:00:09:09")
        link.sides["near"].ip("neigh", "flush", "dev", "wire0")
        _, silence = flow.end()
        check(silence < 3, f"silent for {silence} s")


@case
def a_link_that_goes_down_and_up_only_delays(test):
    with linked(test, "near") as link:
        for name in ("far", "near"):
            flow = Flow(link, 2.5)
            link.sides[name].ip("link", "set", "wire0", "down")
            time.sleep(0.7)
            link.sides[name].ip("link", "set", "wire0", "up")
            _, silence = flow.end()
            check(silence > 0.5, f"the link was never down? {silence}")


@case
def an_address_that_goes_and_comes_back_only_delays(test):
    with linked(test, "near") as link:
        flow = Flow(link, 2.5)
        link.sides["near"].ip("address", "del", "10.9.0.1/24", "dev", "wire0")
        time.sleep(0.7)
        link.sides["near"].ip("address", "add", "10.9.0.1/24", "dev", "wire0")
        flow.end()


def add_path_mtu(family):
    def function(test):
        for link in routed(test):
            flow = Flow(link, 2, family)
            link.middle.ip("link", "set", "far", "mtu", "1300")
            link.sides["far"].ip("link", "set", "wire0", "mtu", "1300")
            _, silence = flow.end()
            check(silence < 2, f"silent for {silence} s")
    function.__name__ = f"a_path_whose_mtu_shrinks_costs_little_ipv{family}"
    case(function)


add_path_mtu(4)
add_path_mtu(6)


@case
def a_peer_that_vanishes_is_given_up_in_time(test):
    with linked(test, "near") as link:
        flow = Flow(link, 20, knobs=("RETRIES2=3",))
        began = time.monotonic()
        link.sides["far"].ip("link", "set", "wire0", "down")
        until(lambda: flow.client.process.poll() is not None, 15, flow.client.output)
        check("timed out" in flow.client.output() or "No route" in flow.client.output(), flow.client.output())
        check(time.monotonic() - began > 1, "too early")


# --- the network is bad ---

WIRES = {
    "one_frame_in_a_hundred_is_lost": ("loss=1",),
    "one_frame_in_twelve_is_lost": ("loss=8", "seed=7"),
    "frames_overtake_each_other": ("delay=2", "late=5"),
    "all_at_once": ("loss=2", "dup=2", "delay=3", "late=4"),
    "a_long_way": ("delay=25",),
}


def add_wire(name, options, client, server, accelerated, family):
    def function(test):
        for link in routed(test, accelerated, options):
            flow = Flow(link, 2, family, client=client, server=server)
            flow.end()
            link.cross.stop()
    function.__name__ = f"{name}_ipv{family}_{'client' if client == accelerated else 'server'}"
    case(function)


for number, (wire_name, wire_options) in enumerate(WIRES.items()):
    for who in ("near", "far"):
        add_wire(wire_name, wire_options, "near", "far", who, 6 if number % 2 else 4)


@case
def a_black_hole_for_large_frames_is_found_out(test):
    for link in routed(test, wire=("most=1200",)):
        # the kernel's end does not look for it by itself
        harness.machine.run(link.sides["far"].inside(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_mtu_probing"]), 5)
        flow = Flow(link, 2)
        flow.end()


harness.main()
