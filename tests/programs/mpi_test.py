# SPDX-License-Identifier: BSD-2-Clause
"""Open MPI over TCP: a ping-pong, and each rank to all."""
import os
import sys

import harness
from harness import both, case, check, need

PROGRAM = [sys.executable, "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "mpi.py")]
OVER_TCP = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "btl", "tcp,self", "--mca", "pml", "ob1",
            "--mca", "btl_tcp_if_include", "lo", "--mca", "oob_tcp_if_include", "lo"]


@case
def ranks_talk_over_tcp():
    def steps(test):
        need("mpirun")
        with test.carried():
            return test.run(["mpirun", *OVER_TCP, "-np", "3", *PROGRAM])
    check(both(steps).startswith("3 "), "not all ranks took part")


if __name__ == "__main__":
    harness.main()
