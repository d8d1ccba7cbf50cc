# SPDX-License-Identifier: BSD-2-Clause
"""Viaduct on Debian's kernel (6.1), which maps no ring of a bound socket, and takes no frames of several buffers; but has VLANs
and bonds, unlike many a machine that tests run on. What is run there are tests of other directories.
"""
import os
import re
import sys

import harness
from harness import case, check
from vm import HERE, booted

BUILD = os.path.realpath(harness.BUILD)
TESTS = os.path.realpath(os.path.join(HERE, ".."))
MODULES = "modprobe -a veth 8021q bonding"
LINKS = "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"


def run(test, script, seconds):
    """In the machine, as root. What the script wrote."""
    command = (f"export TEST_BUILD={BUILD} PYTHONPATH={TESTS}/lib\n{MODULES}\n" + script)
    with booted(test, f"({command}) >/shared/out 2>&1\n", seconds) as program:
        program.process.wait(seconds + 20)
        try:
            with open(test.path("shared/out"), encoding="utf-8", errors="replace") as text:
                said = text.read()
        except OSError:
            said = ""
        check(program.process.returncode == 0, f"{said[-3000:]}\n{program.output()}")
        return said


def cases(test, name, seconds, *chosen):
    """Cases of tests/network: each must be ok, and none skipped."""
    said = run(test, f"exec {sys.executable} -B {TESTS}/network/{name}_test.py {' '.join(chosen)}\n", seconds)
    ok = re.findall(r"^ok (\w+)", said, re.MULTILINE)
    check(ok and sorted(ok) == sorted(chosen or ok) and "skip " not in said, said[-3000:])


@case
def check_says_that_the_network_path_works(test):
    said = run(test, f"{LINKS}\nsleep 1\nexec {BUILD}/viaduct check\n", 120)
    check("The network path will work." in said, said)
    check(re.search(r"note +connections of a program that ends after viaductd was restarted are reset", said), said)


@case
def viaductd_and_its_clients(test):
    names = ["bind", "direct", "veth", "death", "restart", "shared"]
    script = "".join(f"{BUILD}/tests/daemon/daemon_{name}_test {BUILD}/viaductd || exit 1\n" for name in names)
    said = run(test, script, 600)
    check(said.count("[  PASSED  ]") == len(names), said[-3000:])


@case
def programs(test):
    cases(test, "programs", 300, "python_stream_both_sides_ipv4", "python_stream_both_sides_ipv6", "redis_both_sides_ipv4")


@case
def the_connections_of_the_dead(test):
    cases(test, "orphans", 300, "all_that_send_took_arrives_after_a_kill_and_then_the_end",
          "the_same_for_a_user_without_rights")


@case
def vlans_and_bonds(test):
    cases(test, "layered", 800)


harness.main()
