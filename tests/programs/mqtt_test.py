# SPDX-License-Identifier: BSD-2-Clause
"""Mosquitto: messages of many publishers reach each subscriber once and in order, kept ones, a will, a session taken up again."""
import os
import signal

import harness
from harness import HOST, both, case, check, need, wait_until

MESSAGES = 300


class Broker:
    def __init__(self, test):
        need("mosquitto", "mosquitto_pub", "mosquitto_sub")
        self.test, self.port = test, test.port()
        with open(test.path("mosquitto.conf"), "w", encoding="ascii") as conf:
            conf.write(f"listener {self.port} {HOST}\nallow_anonymous true\nuser root\nmax_queued_messages 0\nlog_type all\n")
        self.program = test.start(["mosquitto", "-c", test.path("mosquitto.conf")], self.port)

    def subscriptions(self):
        return self.program.whole_output().count("Sending SUBACK to")

    def subscribe(self, *options):
        """The broker says when: what the subscriber says is kept back until it is more."""
        known = self.subscriptions()
        reader = self.test.start(["mosquitto_sub", "-h", HOST, "-p", self.port, "-F", "got %t %p", *options])
        wait_until(lambda: self.subscriptions() > known, 10, "no subscription")
        return reader

    def publish(self, *options):
        self.test.run(["mosquitto_pub", "-h", HOST, "-p", self.port, *options])


def got(program):
    return [line for line in program.whole_output().splitlines() if line.startswith("got ")]


@case
def messages_arrive_once_and_in_order():
    def steps(test):
        broker = Broker(test)
        with open(test.path("lines"), "w", encoding="ascii") as lines:
            lines.writelines(f"message {i} {'x' * (i * 37 % 5000)}\n" for i in range(MESSAGES))
        with test.carried():
            readers = [broker.subscribe("-q", "2", "-t", "news/#", "-C", 2 * MESSAGES) for _ in range(2)]
            writers = [test.start(["sh", "-c", f"mosquitto_pub -h {HOST} -p {broker.port} -q 2 -t news/{name} -l <{test.path('lines')}"])
                       for name in "ab"]
            for program in writers + readers:
                test.finish(program)
        return [[line for line in got(reader) if f" news/{name} " in line] for reader in readers for name in "ab"]
    check([len(lines) for lines in both(steps)] == [MESSAGES] * 4, "messages are missing")


@case
def a_will_is_published_and_a_session_goes_on():
    def steps(test):
        broker = Broker(test)
        with test.carried():
            broker.publish("-t", "kept", "-m", "old", "-r")
            reader = broker.subscribe("-t", "kept", "-t", "will")
            dying = broker.subscribe("-t", "nothing", "--will-topic", "will", "--will-payload", "died")
            session = ["-q", "1", "-c", "-i", "one", "-t", "queue", "-C", "2"]
            leaving = broker.subscribe(*session)
            for program in (dying, leaving):
                os.kill(program.process.pid, signal.SIGKILL)
                program.process.wait()
            wait_until(lambda: len(got(reader)) == 2, 10, "no will")
            for text in "one", "two":
                broker.publish("-q", "1", "-t", "queue", "-m", text)
            again = broker.subscribe(*session)
            test.finish(again)
        return got(reader), got(again)
    both(steps)


if __name__ == "__main__":
    harness.main()
