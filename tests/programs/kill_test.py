# SPDX-License-Identifier: BSD-2-Clause
"""SIGKILL on either side: the other side sees what the kernel would show it, and nothing remains (the harness looks)."""
import os
import signal
import sys
import time

import harness
from harness import both, case, check

PEER = [sys.executable, "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer.py")]


def survivor(victim_listens, victim, survivor_role, seconds=0.5):
    """What the survivor prints after the victim was killed, on each stack; the same on both."""
    def steps(test):
        port = test.port()
        roles = (victim, survivor_role) if victim_listens else (survivor_role, victim)
        listening = test.start(PEER + ["listen", port, roles[0]], port)
        connecting = test.start(PEER + ["connect", port, roles[1]])
        dying, living = (listening, connecting) if victim_listens else (connecting, listening)
        with test.carried():
            end = time.monotonic() + 10
            while not (dying.output().startswith("ready") and living.output().startswith("ready")):
                check(time.monotonic() < end, "the two did not connect")
                time.sleep(0.02)
            time.sleep(seconds)
        # `viaduct run` becomes the program, so this is the program itself
        os.kill(dying.process.pid, signal.SIGKILL)
        return test.finish(living)
    both(steps)


@case
def receiver_sees_all_bytes_then_the_end():
    survivor(True, "send", "take")
    survivor(False, "send", "take")


@case
def sender_sees_a_reset_when_data_was_unread():
    survivor(True, "slow", "send")
    survivor(False, "slow", "send")


@case
def sender_that_polls_sees_it_too():
    survivor(False, "slow", "sendpoll")


@case
def waiting_reader_sees_the_end():
    survivor(True, "unread", "hold")
    survivor(False, "unread", "hold")


@case
def waiting_epoll_wakes():
    survivor(True, "unread", "poll")
    survivor(False, "unread", "poll")


@case
def unread_greeting_at_the_victim_resets():
    def steps(test):
        port = test.port()
        dying = test.start(PEER + ["listen", port, "unread"], port)
        living = test.start(PEER + ["connect", port, "greet"])
        time.sleep(0.5)
        os.kill(dying.process.pid, signal.SIGKILL)
        time.sleep(0.3)
        return living.process.poll()
    both(steps)


@case
def server_dies_and_a_new_one_is_reached():
    def steps(test):
        found = []
        port = test.port()
        for _ in range(3):
            server = test.start(PEER + ["listen", port, "greet"], port)
            client = test.start(PEER + ["connect", port, "first"])
            found.append(test.finish(client).splitlines()[1])
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
        return found
    both(steps)


if __name__ == "__main__":
    harness.main()
