# SPDX-License-Identifier: BSD-2-Clause
"""What a request costs in system calls across a network, and that nothing is lost that was held back to save some."""
import os
import re
import signal
import subprocess
import sys
import time

import harness
from harness import check, need
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
BATCH = PYTHON + [os.path.join(HERE, "batch.py")]
PACED = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as c:
    for i in range(int(sys.argv[3])):
        time.sleep(0.002)
        c.sendall(b"*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nx\\r\\n")
        if c.recv(100) != b"$-1\\r\\n":
            sys.exit("redis gave another answer")
"""
STRAY = 8  # UDP: what comes before the neighbours know each other is the kernel's


class Counted:
    """System calls of a running process's first thread, by name."""

    def __init__(self, test, pid):
        self.path = test.path("calls")
        self.strace = subprocess.Popen(["strace", "-c", "-o", self.path, "-p", str(pid)], stderr=subprocess.PIPE)
        self.strace.stderr.readline()  # it is attached
        self.calls = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.strace.send_signal(signal.SIGINT)
        self.strace.wait(10)
        with open(self.path, encoding="ascii", errors="replace") as table:
            self.text = table.read()
        for count, name in re.findall(r"(?m)^\s*\S+\s+\S+\s+\S+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", self.text):
            self.calls[name] = int(count)
        self.total = self.calls.pop("total", 0)


def a_paced_request_costs_one_wait_and_one_kick(test, profile):
    need("redis-server", "strace")
    requests = 400
    with linked(test, "far") as link:
        port, address = link.port(), link.address("far")
        server = link.start("far", ["redis-server", "--port", port, "--bind", address, "--save", "", "--appendonly", "no",
                                    "--protected-mode", "no", "--dir", test.directory], port, knobs=["PROFILE=" + profile])
        client = PYTHON + ["-c", PACED, address, port]
        with link.carried():
            link.run("near", client + [100])  # it has learned that its waits are long
            with Counted(test, server.process.pid) as counted:
                link.run("near", client + [requests])
        check(counted.calls.get("sendto", 0) >= requests, f"not all kicks were seen:\n{counted.text}")
        waits = sum(counted.calls.get(name, 0) for name in ("epoll_pwait2", "epoll_pwait", "ppoll"))
        check(waits < 1.5 * requests and counted.total < 3 * requests, f"for {requests} requests:\n{counted.text}")


def answers_to_a_batch_are_kicked_together(test):
    need("strace")
    sockets, batches = 16, 20
    with linked(test, "far") as link:
        port, flag = link.port(), flag_file(test)
        words = ["tcp", link.address("far"), port, sockets, "waits", flag]
        server = link.start("far", BATCH + ["serve", *words], port)
        client = link.start("near", BATCH + ["ask", *words])
        end = time.monotonic() + 5
        while "ready" not in server.output() and time.monotonic() < end:
            time.sleep(0.005)
        with Counted(test, server.process.pid) as counted:
            check("answered" in test.finish(client), "no answers")
        kicks, answers = counted.calls.get("sendto", 0), sockets * batches
        check(0 < kicks < answers / 4, f"{kicks} kicks for {answers} answers:\n{counted.text}")


def flag_file(test):
    path = test.path("flag")
    with open(path, "wb") as file:
        file.write(b"\0")
    return path


def a_held_answer_comes(test, protocol, how):
    with linked(test, "far") as link:
        port, flag = link.port(), flag_file(test)
        words = [protocol, link.address("far"), port, 2, how, flag]
        server = link.start("far", BATCH + ["serve", *words], port, udp=protocol == "udp")
        before = link.sides["far"].counters()
        client = link.start("near", BATCH + ["ask", *words])
        check("answered" in test.finish(client), f"no answer; server: {server.output()}")
        seen = link.sides["far"].counters() - before
        check(seen <= (STRAY if protocol == "udp" else 0), f"not accelerated: the kernel saw {seen} segments")
        code = server.process.wait(10)
        expected = -signal.SIGKILL if how in ("is-killed", "forks") else 0
        check(code in (expected, 128 + signal.SIGKILL), f"the server ended with {code}: {server.output()}")


def add(function, *arguments):
    def one(test):
        function(test, *arguments)
    one.__name__ = "_".join([function.__name__, *(word.replace("-", "_") for word in arguments)])
    harness.case(one)


for name in ("default", "cpu"):
    add(a_paced_request_costs_one_wait_and_one_kick, name)
add(answers_to_a_batch_are_kicked_together)
for kind in ("tcp", "udp"):
    for way in ("computes", "returns", "_exits", "is-killed", "executes", "forks"):
        add(a_held_answer_comes, kind, way)

harness.main()
