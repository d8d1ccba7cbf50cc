# SPDX-License-Identifier: BSD-2-Clause
"""Programs that listen before the network is there, as servers do that start with the machine: an interface that comes
up later serves them as one that was there from the start."""
import json
import os
import sys
import time

import harness
import machine
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]


def interfaces(side, pid):
    stacks = json.loads(machine.run(side.inside([harness.VIADUCT, "stat", "--json", pid]), 10))["stacks"]
    return sorted(at["name"] for stack in stacks for at in stack.get("interfaces", []))


def await_interfaces(side, program, names):
    end = time.monotonic() + 15
    while interfaces(side, program.process.pid) != names:
        check(time.monotonic() < end, f"{interfaces(side, program.process.pid)} instead of {names}")
        time.sleep(0.02)


def second_wire(link):
    near, far = link.sides["near"], link.sides["far"]
    near.ip("link", "add", "later", "type", "veth", "peer", "name", "later", "netns", str(far.holder.pid))
    for side, address in ((far, "10.8.0.2"), (near, "10.8.0.1")):
        side.ip("address", "add", address + "/24", "dev", "later")
        side.ip("link", "set", "later", "up")
    return "10.8.0.1"


@case
def a_listener_from_before_the_only_interface_came_up(test):
    with linked(test, "near") as link:
        near, port = link.sides["near"], link.port()
        near.ip("link", "set", "wire0", "down")
        server = link.start("near", STREAM + ["serve", "0.0.0.0", port, 1], port)
        check(interfaces(near, server.process.pid) == [], "the interface was to be down")
        near.ip("link", "set", "wire0", "up")
        await_interfaces(near, server, ["wire0"])
        with link.carried():
            link.run("far", STREAM + ["fetch", link.address("near"), port, 1, 300000])


@case
def a_listener_gets_what_comes_by_an_interface_that_is_new(test):
    with linked(test, "near") as link:
        near, port = link.sides["near"], link.port()
        server = link.start("near", STREAM + ["serve", "0.0.0.0", port, 2], port)
        await_interfaces(near, server, ["wire0"])
        address = second_wire(link)
        await_interfaces(near, server, ["later", "wire0"])
        with link.carried():
            for to in (address, link.address("near")):
                link.run("far", STREAM + ["fetch", to, port, 1, 300000])


@case
def a_bound_udp_socket_gets_what_comes_by_an_interface_that_is_new(test):
    with linked(test, "near") as link:
        near, port = link.sides["near"], link.port()
        server = link.start("near", STREAM + ["reflect", "0.0.0.0", port], port, udp=True)
        await_interfaces(near, server, ["wire0"])
        address = second_wire(link)
        await_interfaces(near, server, ["later", "wire0"])
        link.run("far", STREAM + ["ask", address, port, 1])  # the neighbour may be unresolved: the kernel's answer
        with link.carried():
            link.run("far", STREAM + ["ask", address, port, 20])


@case
def interfaces_that_come_are_not_for_who_is_bound_elsewhere(test):
    with linked(test, "near") as link:
        near, port, other = link.sides["near"], link.port(), link.port()
        server = link.start("near", STREAM + ["serve", link.address("near"), port, 1], port)
        everywhere = link.start("near", STREAM + ["serve", "0.0.0.0", other, 1], other)
        await_interfaces(near, server, ["wire0"])
        second_wire(link)
        await_interfaces(near, everywhere, ["later", "wire0"])
        check(interfaces(near, server.process.pid) == ["wire0"], "an interface that the listener can't hear")


harness.main()
