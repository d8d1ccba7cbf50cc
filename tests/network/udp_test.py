# SPDX-License-Identifier: BSD-2-Clause
"""UDP's options across a network: what the kernel tells a program of its datagrams, Viaduct tells."""
import os
import sys
import time

import harness
from harness import case, check, same
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
UDP = [sys.executable, "-B", os.path.join(HERE, "udp.py")]
ALL4 = ["pktinfo", "ttl", "tos", "origdst"]
ALL6 = ["pktinfo6", "hoplimit", "tclass", "origdst6"]


def told(test, accelerated, family, to, options):
    """What the far side prints of the datagrams that the near side says, and what that prints."""
    with linked(test, accelerated) as link:
        count = 12 if to == 4 else 11
        with link.carried(stray=8):
            server = link.start("far", UDP + ["hear", family, 7000, count] + options, 7000, udp=True)
            said = link.run("near", UDP + ["say", link.address("far", to), 7000])
            code = server.process.wait(20)
        check(code == 0, server.output())
        with open(server.log, encoding="ascii") as log:
            return said + log.read()


def differs_not(test, run):
    """The far side, the near side, both on Viaduct: as the kernel."""
    kernel = run(test, "")
    for accelerated in ("far", "near", "both"):
        same(kernel, run(test, accelerated), f"what {accelerated} sees")


@case
def everything_is_told_of_ipv4(test):
    differs_not(test, lambda t, who: told(t, who, 4, 4, ALL4))


@case
def everything_is_told_of_ipv6(test):
    differs_not(test, lambda t, who: told(t, who, 6, 6, ALL6))


@case
def an_ipv6_socket_is_told_of_ipv4(test):
    differs_not(test, lambda t, who: told(t, who, 6, 4, ALL4 + ALL6))


@case
def nothing_is_told_unasked(test):
    differs_not(test, lambda t, who: told(t, who, 4, 4, []))


harness.main()
