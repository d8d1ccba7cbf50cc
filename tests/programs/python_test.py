# SPDX-License-Identifier: BSD-2-Clause
"""Python's multiprocessing over TCP: a manager, processes that were forked or spawned, connections that children inherit."""
import os
import sys

import harness
from harness import both, case, check

PARALLEL = [sys.executable, "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "parallel.py")]


def work(method):
    def steps(test):
        port = test.port()
        test.start(PARALLEL + ["manage", port], port)
        with test.carried():
            return test.run(PARALLEL + ["work", port, method, 4])
    check(both(steps).startswith("60 "), "not all tasks were done")


@case
def forked_workers_share_a_queue():
    work("fork")


@case
def spawned_workers_share_a_queue():
    work("spawn")


if __name__ == "__main__":
    harness.main()
