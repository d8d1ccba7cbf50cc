# SPDX-License-Identifier: BSD-2-Clause
"""How accelerated programs behave on the machine: with plain peers, in system calls, in CPU time, under the tools."""
import json
import os
import re
import sys
import time

import harness
import machine
from harness import HOST, VIADUCT, Test, case, check, need

HERE = os.path.dirname(os.path.abspath(__file__))
PEER = [sys.executable, "-B", os.path.join(HERE, "peer.py")]
RESP = [sys.executable, "-B", os.path.join(HERE, "resp.py")]


def redis(test, plain=False):
    need("redis-server")
    port = test.port()
    server = test.start(["redis-server", "--port", port, "--bind", HOST, "--save", "", "--dir", test.directory], port,
                        plain=plain)
    return server, port


@case
def plain_and_accelerated_clients_at_once(test):
    _, port = redis(test)
    digests = set()
    clients = [test.start(RESP + [port, "values", "800", "20000"], plain=plain) for plain in (True, False, True, False)]
    for client in clients:
        digests.add(test.finish(client))
    check(len(digests) == 1, f"different answers: {digests}")


@case
def accelerated_client_of_a_plain_server(test):
    _, port = redis(test, plain=True)
    accelerated = test.run(RESP + [port, "values", "500", "20000"])
    check(accelerated == test.run(RESP + [port, "values", "500", "20000"], plain=True), "different answers")


@case
def spinning_ping_pong_makes_no_system_calls(test):
    need("sockperf", "strace")
    port = test.port()
    flags = ["-i", HOST, "-p", port, "--tcp"]
    test.start(["taskset", "-c", "0", "sockperf", "server"] + flags, port)
    out = test.run(["taskset", "-c", "1", "strace", "-f", "-c", "-o", test.path("calls"), "sockperf", "ping-pong", *flags,
                    "-m", "64", "-t", "2", "--mps=5000000"])
    messages = int(re.search(r"SentMessages=(\d+)", out).group(1))
    with open(test.path("calls"), encoding="ascii", errors="replace") as table:
        text = table.read()
    calls = int(re.search(r"(?m)^\S+\s+\S+\s+\S*\s+(\d+)\s+\d*\s*total$", text).group(1))
    check(messages > 50000, f"only {messages} messages")
    check(calls < messages / 50, f"{calls} system calls for {messages} messages:\n{text[:1500]}")


@case
def idle_pair_uses_no_cpu(test):
    port = test.port()
    pair = [test.start(PEER + ["listen", port, "hold"], port), test.start(PEER + ["connect", port, "poll"])]
    time.sleep(1.5)
    before = [harness.cpu_seconds(one.process.pid) for one in pair]
    time.sleep(4)
    used = [harness.cpu_seconds(one.process.pid) - first for one, first in zip(pair, before)]
    check(all(one.process.poll() is None for one in pair), "they did not wait")
    check(max(used) < 0.04, f"CPU seconds in 4 s: {used}")


def explained(test, program, *sentences):
    """What `explain` says of a program, once it says all this: the program may not have come so far yet."""
    end = time.monotonic() + 30
    while True:
        try:
            text = test.run([VIADUCT, "explain", program.process.pid], plain=True)
        except machine.Failed as failure:  # it is `viaduct run` still
            text = str(failure)
        if all(sentence in text for sentence in sentences):
            return text
        check(time.monotonic() < end and program.process.poll() is None, f"{sentences} not in: {text}")
        time.sleep(0.05)


@case
def stat_shows_live_sockets(test):
    server, port = redis(test)
    client = test.start(PEER + ["connect", port, "hold"])
    for program in (client, server):
        explained(test, program, "accelerated, over vNIC")
    for program in (server, client):
        text = json.dumps(json.loads(test.run([VIADUCT, "stat", program.process.pid, "--json"], plain=True)))
        check("ESTABLISHED" in text.upper() and str(port) in text, f"no established socket in: {text[:1500]}")
    check("LISTEN" in test.run([VIADUCT, "stat", server.process.pid], plain=True).upper(), "no listener in stat")


@case
def explain_gives_a_sentence_for_each_socket(test):
    server, port = redis(test)
    accelerated = test.start(PEER + ["connect", port, "hold"])
    plain = test.start(PEER + ["connect", port, "hold"], plain=True)
    explained(test, accelerated, "accelerated, over vNIC")
    explained(test, server, "accelerated, over vNIC", "does not run under viaduct")
    check(plain.process.poll() is None, "the plain client ended")


@case
def explain_tells_an_accelerated_client_of_a_plain_server(test):
    _, port = redis(test, plain=True)
    explained(test, test.start(PEER + ["connect", port, "hold"]), "Nobody who runs under viaduct listens")


@case
def nothing_is_left_of_a_pair_that_ends():
    # the harness itself looks for processes and sockets; here: descriptors of a server that lives on
    test = Test()
    try:
        server, port = redis(test)
        test.run(RESP + [port, "values", "10", "1000"])
        time.sleep(0.5)
        before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        for _ in range(10):
            test.run(RESP + [port, "values", "10", "1000"])
        end = time.monotonic() + 20
        while len(os.listdir(f"/proc/{server.process.pid}/fd")) > before and time.monotonic() < end:
            time.sleep(0.1)
        after = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        check(after <= before, f"descriptors of the server grew from {before} to {after} over ten clients")
    finally:
        test.end()


if __name__ == "__main__":
    harness.main()
