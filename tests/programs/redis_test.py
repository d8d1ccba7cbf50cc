# SPDX-License-Identifier: BSD-2-Clause
"""Redis: data of all sizes, pipelines, its forked children, many clients."""
import os
import sys

import harness
from harness import HOST, both, case, check, need

CLIENT = [sys.executable, "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "resp.py")]


def server(test, *options):
    need("redis-server")
    port = test.port()
    test.start(["redis-server", "--port", port, "--bind", HOST, "--dir", test.directory, "--save", "", *options], port)
    return port


def client(test, port, *arguments):
    with test.carried():
        return test.run(CLIENT + [port] + list(arguments))


@case
def random_values_come_back():
    both(lambda test: client(test, server(test), "values", 1500, 20000))


@case
def pipelines_keep_their_order():
    both(lambda test: client(test, server(test), "pipeline", 4000, 100))


@case
def big_values_come_back_whole():
    def steps(test):
        port = server(test, "--proto-max-bulk-len", "128mb")
        return [client(test, port, "big", size) for size in (1, 7, 64)]
    both(steps)


@case
def saving_in_a_child_does_not_disturb():
    def steps(test):
        port = server(test)
        before = client(test, port, "bgsave")
        data = client(test, port, "digest")
        test.programs[-1].stop()
        again = test.port()
        test.start(["redis-server", "--port", again, "--bind", HOST, "--dir", test.directory, "--save", ""], again)
        check(client(test, again, "digest") == data, "what was saved is not what was served")
        return before, data
    both(steps)


@case
def rewriting_the_log_in_a_child_does_not_disturb():
    def steps(test):
        port = server(test, "--appendonly", "yes")
        return client(test, port, "rewrite"), client(test, port, "digest")
    both(steps)


@case
def many_clients_are_served():
    def steps(test):
        port = server(test)
        with test.carried():
            test.run(["redis-benchmark", "-h", HOST, "-p", port, "-t", "set,get,lpush,lrange_100", "-n", "20000", "-c", "200",
                      "-r", "1000", "-d", "100", "-q"])
        return "served"
    both(steps)


@case
def threads_for_io_work():
    def steps(test):
        port = server(test, "--io-threads", "2", "--io-threads-do-reads", "yes")
        with test.carried():
            test.run(["redis-benchmark", "-h", HOST, "-p", port, "-t", "set,get", "-n", "10000", "-c", "50", "--threads", "2",
                      "-q"])
        return client(test, port, "values", 200, 5000)
    both(steps)


if __name__ == "__main__":
    harness.main()
