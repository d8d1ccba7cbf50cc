# SPDX-License-Identifier: BSD-2-Clause
"""Forked processes that make sockets of their own: one makes them in its parent's stack, and so has the interface's own
queues; what one of the two leaves behind when it ends, the other has."""
import os
import re
import signal
import sys
import time

import harness
import machine
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]

# Listens at the first port, so that it has the interface; each child listens at a port of its own and serves there.
TREE = """
import os, signal, socket, sys, threading
address, first, *ports = sys.argv[1:]
def listen(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, int(port))); s.listen(64); return s
def echo(c):
    with c:
        while d := c.recv(65536): c.sendall(d)
def serve(s):
    while True: threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()
own = listen(first)
for port in ports:
    if os.fork() == 0:
        own.close()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        mine = listen(port)
        print(port, os.getpid(), flush=True)
        serve(mine)
serve(own)
"""


class Tree:
    """The parent on the far side, and its children."""

    def __init__(self, link, children):
        self.link = link
        self.first, *self.ports = [link.port() for _ in range(children + 1)]
        self.program = link.start("far", PYTHON + ["-c", TREE, link.address("far"), self.first] + self.ports, self.first)
        end = time.monotonic() + 20
        while len(self.listening()) < children:  # each says so when it listens
            check(time.monotonic() < end, f"no child listens: {self.program.output()}")
            time.sleep(0.02)
        self.child = {int(port): int(pid) for port, pid in self.listening()}
        self.parent = os.getpgid(self.child[self.ports[0]])

    def listening(self):
        return re.findall(r"^(\d+) (\d+)$", self.program.output(), re.M)

    def fetch(self, *ports, size=300000):
        for port in ports:
            self.link.run("near", STREAM + ["fetch", self.link.address("far"), port, 2, size])


def detours(side):
    """How many veths stacks have behind the interface."""
    return machine.run(side.inside(["ip", "link"]), 10).count("viaduct")


def await_count(side, filters, seconds=10):
    """viaductd has so many filters."""
    end = time.monotonic() + seconds
    while True:
        said = machine.run(side.inside([harness.VIADUCT, "check"]), 10)
        found = int(re.search(r"with (\d+) filters", said).group(1))
        if found == filters:
            return
        check(time.monotonic() < end, f"{found} filters, not {filters}")
        time.sleep(0.2)


def gone(pid):
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and "State:\tZ" not in open(f"/proc/{pid}/status", encoding="ascii").read():
        check(time.monotonic() < end, f"process {pid} does not end")
        time.sleep(0.02)


@case
def a_child_serves_over_its_parents_queues(test):
    with linked(test, "far") as link:
        tree = Tree(link, 1)
        with link.carried():
            tree.fetch(tree.first, tree.ports[0])
        check(detours(link.sides["far"]) == 0, "the child has a veth")
        said = machine.run([harness.VIADUCT, "explain", str(tree.child[tree.ports[0]])], 10)
        check(f"{link.address('far')}:{tree.ports[0]}: accelerated" in said, said)


@case
def more_children_have_stacks_of_their_own(test):
    with linked(test, "far") as link:
        tree = Tree(link, 3)
        with link.carried():
            tree.fetch(tree.first, *tree.ports)
        check(detours(link.sides["far"]) == 2, f"{detours(link.sides['far'])} veths")


@case
def a_child_goes_on_when_its_parent_is_killed(test):
    with linked(test, "far") as link:
        side = link.sides["far"]
        tree = Tree(link, 1)
        port = tree.ports[0]
        with link.carried():
            pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 3])
            os.kill(tree.parent, signal.SIGKILL)
            gone(tree.parent)
            tree.fetch(port)
            check(int(test.finish(pacing)) > 300, "the connection stood still")
        await_count(side, 1, 20)  # the parent's has gone, the child's stands
        os.kill(tree.child[port], signal.SIGKILL)
        await_count(side, 0)
        check(detours(side) == 0, "a veth remains")


@case
def what_a_child_leaves_its_parent_removes(test):
    for way in (signal.SIGKILL, signal.SIGTERM):
        with linked(test, "far") as link:
            side = link.sides["far"]
            tree = Tree(link, 1)
            port = tree.ports[0]
            with link.carried():
                pacing = link.start("near", STREAM + ["pace", link.address("far"), tree.first, 3])
                tree.fetch(port)
                os.kill(tree.child[port], way)
                gone(tree.child[port])
                tree.fetch(tree.first)
                check(int(test.finish(pacing)) > 300, "the parent's connection stood still")
            await_count(side, 1, 20)
            # the port is free for others: nobody holds it any more
            machine.run(side.inside(PYTHON + ["-c", f"import socket\nsocket.socket().bind(('', {port}))"]), 10)
            check(side.resets() <= 1, f"the kernel has sent {side.resets()} resets")


@case
def a_child_takes_the_place_of_the_one_before(test):
    """As netserver does: a process for each client, one after the other."""
    one_by_one = TREE.replace("        serve(mine)\n", "        echo(mine.accept()[0]); os._exit(0)\n    os.wait()\n")
    with linked(test, "far") as link:
        first, *ports = [link.port() for _ in range(6)]
        link.start("far", PYTHON + ["-c", one_by_one, link.address("far"), first] + ports, first)
        with link.carried():
            for port in ports:
                end = time.monotonic() + 10
                while not link.sides["far"].listening(port):
                    check(time.monotonic() < end, "it does not listen")
                    time.sleep(0.02)
                time.sleep(0.1)
                check(detours(link.sides["far"]) == 0, "a veth")
                link.run("near", STREAM + ["fetch", link.address("far"), port, 1, 300000])


@case
def both_go_on_with_another_viaductd(test):
    with linked(test, "far") as link:
        side = link.sides["far"]
        tree = Tree(link, 1)
        with link.carried():
            pacing = [link.start("near", STREAM + ["pace", link.address("far"), port, 5])
                      for port in (tree.first, tree.ports[0])]
            side.daemon.kill()
            side.daemon.wait()
            time.sleep(0.3)
            side.start_daemon()
            time.sleep(1)
            tree.fetch(tree.first, tree.ports[0])
            for one in pacing:
                check(int(test.finish(one)) > 500, "a connection stood still")
        await_count(side, 2)


harness.main()
