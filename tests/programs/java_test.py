# SPDX-License-Identifier: BSD-2-Clause
"""Java: a server with a selector (NIO) and one with a thread for each connection, each with clients of both kinds."""
import os
import subprocess

import harness
from harness import both, case, check, need

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Echo.java")
# the short compiler: a test is over before the long one has paid
QUICKLY = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-Xshare:auto"]
CONNECTIONS, ROUNDS = 6, 40
COMPILED = {}


def echo(test, *words):
    """A command that runs Echo, compiled once."""
    need("java", "javac")
    if "in" not in COMPILED:
        COMPILED["in"] = os.path.join(os.path.dirname(test.directory), "java-classes")
        subprocess.run(["javac", "-d", COMPILED["in"], SOURCE], check=True, timeout=120)
    return QUICKLY + ["-cp", COMPILED["in"], "Echo", *words]


def talk(server, client):
    def steps(test):
        port = test.port()
        test.start(echo(test, server, port), port)
        with test.carried():
            return test.run(echo(test, "ask", client, port, CONNECTIONS, ROUNDS))
    check(both(steps) == f"{[ROUNDS] * CONNECTIONS}\n", "what came back is wrong")


@case
def java_with_a_selector_serves_clients_with_selectors():
    talk("nio", "nio")


@case
def java_with_a_selector_serves_blocking_clients():
    talk("nio", "blocking")


@case
def java_with_a_thread_for_each_serves_clients_with_selectors():
    talk("blocking", "nio")


@case
def java_with_a_thread_for_each_serves_blocking_clients():
    talk("blocking", "blocking")


if __name__ == "__main__":
    harness.main()
