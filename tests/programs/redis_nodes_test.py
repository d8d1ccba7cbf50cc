# SPDX-License-Identifier: BSD-2-Clause
"""Redis in several processes: a replica that follows, breaks off and catches up; a cluster with its bus."""
import os
import signal

import harness
from harness import HOST, both, case, check, need, wait_until

KEYS = 300


class Node:
    def __init__(self, test, name, *options):
        need("redis-server", "redis-cli")
        self.test, self.port, self.directory = test, test.port(), test.path(name)
        os.mkdir(self.directory)
        self.program = test.start(["redis-server", "--port", self.port, "--bind", HOST, "--dir", self.directory, "--save", "",
                                   *options], self.port)

    def cli(self, *words):
        return self.test.run(["redis-cli", "-p", self.port, *words]).strip()

    def info(self, section, field):
        return [line.split(":")[1].strip() for line in self.cli("info", section).splitlines() if line.startswith(field + ":")][0]

    def digest(self):
        return self.cli("debug", "digest")


def fill(node, first):
    node.cli("eval", f"for i = {first}, {first + KEYS} do redis.call('set', 'key:' .. i, string.rep('v' .. i, i % 500)) end", "0")


def in_step(one, other):
    """What the replica has at the end is the master's."""
    wait_until(lambda: other.info("replication", "master_link_status") == "up" and one.digest() == other.digest(), 15,
               lambda: f"the replica does not follow: {other.cli('info', 'replication')}")
    return other.digest()


@case
def redis_replicates():
    """A first copy, then what is written; a master that dies is replaced by its replica, which its successor follows."""
    def steps(test):
        debug = ("--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0")
        master = Node(test, "master", *debug)
        fill(master, 0)
        with test.carried():
            replica = Node(test, "replica", "--replicaof", f"{HOST} {master.port}", *debug)
            found = [in_step(master, replica)]
            fill(master, 1000)
            found.append(in_step(master, replica))
            os.kill(master.program.process.pid, signal.SIGKILL)
            wait_until(lambda: replica.info("replication", "master_link_status") == "down", 15, "the master's death is not seen")
            replica.cli("replicaof", "no", "one")
            again = Node(test, "again", *debug)
            again.cli("replicaof", HOST, replica.port)
            fill(replica, 2000)
            found.append(in_step(replica, again))
        return found
    both(steps)


@case
def redis_makes_a_cluster():
    """Three masters, each with a third of the slots, find each other by their bus; a client is sent from one to the other."""
    def steps(test):
        with test.carried():
            nodes = [Node(test, f"node-{i}", "--cluster-enabled", "yes", "--cluster-port", test.port()) for i in range(3)]
            test.run(["redis-cli", "--cluster", "create", *[f"{HOST}:{node.port}" for node in nodes], "--cluster-yes"])
            wait_until(lambda: all("cluster_state:ok" in node.cli("cluster", "info") for node in nodes), 15, "no cluster comes about")
            with open(test.path("commands"), "w", encoding="ascii") as commands:
                commands.write("".join(f"set key:{i} value-{i}\nget key:{i}\n" for i in range(KEYS)))
            answers = test.run(["sh", "-c", f"redis-cli -c -p {nodes[0].port} <{test.path('commands')}"])
            sizes = [node.cli("dbsize") for node in nodes]
        check(answers.count("value-") == KEYS and "ERR" not in answers, answers)
        return sizes
    both(steps)


if __name__ == "__main__":
    harness.main()
