# SPDX-License-Identifier: BSD-2-Clause
"""Clients that bind each of their sockets to a port: the stack steers such flows to itself, without viaductd, and the
port stays taken as long as the connection needs it."""
import hashlib
import os
import random
import re
import sys
import time

import harness
import machine
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]

# COUNT connections from ports of its own, one after the other; says "half" and waits for a line in the middle.
MANY = """
import os, socket, sys
def connect(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", port)); s.settimeout(10); s.connect((sys.argv[1], int(sys.argv[2]))); return s
count = int(sys.argv[3])
kept = connect(40000)
for i in range(count):
    if i == count // 2:
        print("half", flush=True)
        {}
    with connect(40001 + i) as s:
        data = os.urandom(1000); s.sendall(data); s.shutdown(1); got = b""
        while part := s.recv(4096): got += part
        assert got == data
kept.sendall(b"still"); kept.shutdown(1)
assert kept.recv(100) == b"still" and kept.recv(100) == b""
"""
WAIT = "import time; time.sleep(2)"


def filters(side):
    said = machine.run(side.inside([harness.VIADUCT, "check"]), 10)
    return int(re.search(r"with (\d+) filters", said).group(1))


def serve(link, count):
    port = link.port()
    link.start("far", STREAM + ["serve", link.address("far"), port, count], port)
    return port


def await_text(program, text):
    end = time.monotonic() + 15
    while text not in program.output():
        check(program.process.poll() is None and time.monotonic() < end, f"no {text}: {program.output()}")
        time.sleep(0.02)


@case
def many_bound_clients_need_no_viaductd(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        port = serve(link, 301)
        with link.carried():
            client = link.start("near", PYTHON + ["-c", MANY.format(WAIT), link.address("far"), port, 300])
            await_text(client, "half")
            check(filters(side) == 0, f"{filters(side)} filters: who asked for them?")
            test.finish(client)
        check(side.resets() == 0, f"the kernel has sent {side.resets()} resets")


@case
def they_go_on_with_another_viaductd_and_without(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        port = serve(link, 61)
        with link.carried():
            client = link.start("near", PYTHON + ["-c", MANY.format("import time; time.sleep(4)"), link.address("far"),
                                                  port, 60])
            await_text(client, "half")
            side.daemon.kill()
            side.daemon.wait()
            time.sleep(0.5)
            side.start_daemon()
            test.finish(client)
        check(side.resets() == 0, f"the kernel has sent {side.resets()} resets")


@case
def the_port_is_taken_until_the_connection_is_over(test):
    hold = ("import socket, sys, time\ns = socket.socket(); s.bind(('', 41000)); s.connect((sys.argv[1], int(sys.argv[2])))\n"
            "s.sendall(b'x'); assert s.recv(1) == b'x'; s.close(); print('closed', flush=True); time.sleep(3)")
    take = "import socket\nsocket.socket().bind(('', 41000))"
    with linked(test, "near") as link:
        side = link.sides["near"]
        port = serve(link, 1)
        with link.carried():
            client = link.start("near", PYTHON + ["-c", hold, link.address("far"), port])
            await_text(client, "closed")
            try:
                machine.run(side.inside(PYTHON + ["-c", take]), 10)
            except machine.Failed as failure:
                check("Address already in use" in str(failure), str(failure))
            else:
                raise AssertionError("another program got the port of a connection in TIME-WAIT")
            test.finish(client)


@case
def what_a_killed_bound_client_sent_arrives(test):
    size = 60000
    pour = ("import os, random, signal, socket, sys\ns = socket.socket(); s.bind(('', 42000))\n"
            "s.connect((sys.argv[1], int(sys.argv[2]))); s.sendall(random.Random(int(sys.argv[3])).randbytes(int(sys.argv[3])))\n"
            "os.kill(os.getpid(), signal.SIGKILL)")
    with linked(test, "near") as link:
        port = link.port()
        reader = link.start("far", STREAM + ["drink", link.address("far"), port, 2], port)
        client = link.start("near", PYTHON + ["-c", pour, link.address("far"), port, size])
        check(client.process.wait(10) != 0, "it was to kill itself")
        check(test.finish(reader) == hashlib.sha256(random.Random(size).randbytes(size)).hexdigest(), "not all arrived")


@case
def forked_children_bind_too(test):
    """One has its parent's stack, the others have stacks of their own; all connect from ports of theirs."""
    forking = MANY.format("pass").replace("count = int", "base = [40000, 44000, 48000]\nme = 0\nfor n in (1, 2):\n"
                                         "    if os.fork() == 0:\n        me = n; break\ncount = int")
    forking = forking.replace("connect(40000)", "connect(base[me])").replace("40001 + i", "base[me] + 1 + i")
    forking += "if me == 0:\n    assert os.wait()[1] == 0 and os.wait()[1] == 0\n"
    with linked(test, "near") as link:
        port = serve(link, 123)
        with link.carried():
            link.run("near", PYTHON + ["-c", forking, link.address("far"), port, 40], 60)


@case
def a_plain_program_gets_the_port_afterwards(test):
    """A flow that stayed behind would swallow what is the kernel's by then."""
    says_bye = ("import socket, sys\nl = socket.socket(); l.setsockopt(1, 2, 1); l.bind((sys.argv[1], int(sys.argv[2])))\n"
                "l.listen()\nfor _ in range(2):\n    c, _ = l.accept(); c.sendall(b'bye'); c.shutdown(1); c.recv(1)\n")
    hear = ("import socket, sys, time\ns = socket.socket(); s.bind(('', 43000)); s.settimeout(5)\n"
            "s.connect((sys.argv[1], int(sys.argv[2])))\n"
            "while s.recv(100): pass\ns.close(); print('closed', flush=True); time.sleep(float(sys.argv[3]))")
    again = hear.replace("print", "time.sleep(0.02); s = socket.socket(); s.bind(('', 43000)); s.close(); print")
    with linked(test, "near") as link:
        port = link.port()
        link.start("far", PYTHON + ["-c", says_bye, link.address("far"), port], port)
        first = link.start("near", PYTHON + ["-c", again, link.address("far"), port, 4])
        await_text(first, "closed")
        end = time.monotonic() + 3
        plain = link.sides["near"].inside(PYTHON + ["-c", hear, link.address("far"), port, 0])
        while True:  # the port is held until the helper sees that the connection is gone
            try:
                machine.run(plain, 10)
                break
            except machine.Failed as failure:
                check("in use" in str(failure) and time.monotonic() < end, str(failure))
                time.sleep(0.2)
        test.finish(first)


harness.main()
