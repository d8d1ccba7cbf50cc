# SPDX-License-Identifier: BSD-2-Clause
"""UDP's options across a network: what the kernel tells a program of its datagrams, Viaduct tells."""
import os
import sys
import time

import harness
import machine
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


def introduce(link, family):
    """The neighbours know each other: what comes first is not left to the kernel."""
    to = link.address("far", family)
    machine.run(link.sides["near"].inside(["bash", "-c", f"echo > /dev/udp/{to}/9; sleep 0.2"]), 10)


def refused(test, accelerated, family, how, options):
    """What the near side sees of datagrams to a port of the far side that nobody has."""
    with linked(test, accelerated) as link:
        for limit in ("ipv4.icmp_ratelimit", "ipv6.icmp.ratelimit"):
            machine.run(link.sides["far"].inside(["sysctl", "-qw", f"net.{limit}=0"]), 10)
        introduce(link, family)
        before = link.sides["near"].counters()
        seen = link.run("near", UDP + ["errors", link.address("far", family), 7001, how] + options)
        check(not accelerated or link.sides["near"].counters() - before < 3, "the kernel has sent the datagrams")
        return seen


@case
def errors_are_read_as_from_the_kernel(test):
    for family, asked in ((4, "recverr"), (6, "recverr6")):
        for how in ("connected", "bound"):
            for options in ([], [asked], [asked] + (ALL4 if family == 4 else ALL4 + ALL6)[:-1]):
                kernel = refused(test, "", family, how, options)
                same(kernel, refused(test, "near", family, how, options), f"IPv{family}, {how}, {options}: what")


GROUP, GROUP6 = "239.5.6.7", "ff15::567"


def heard(test, accelerated, bound, how, options=(), group=GROUP, texts=("one", "two", "three", "end")):
    """What a member on the far side hears of what the near side publishes."""
    with linked(test, accelerated) as link:
        family = 6 if ":" in group else 4
        for side in link.sides.values():
            side.ip("route", "add", "224.0.0.0/4", "dev", "wire0")
        server = link.start("far", UDP + ["member", bound, 7002, group, how] + list(options), 7002, udp=True)
        before = link.sides["far"].counters()
        link.run("near", UDP + ["publish", link.address("near", family), group, 7002] + list(texts))
        code = server.process.wait(20)
        seen = link.sides["far"].counters() - before
        check(code == 0, server.output())
        check(not accelerated or seen == 0, f"the kernel has seen {seen} datagrams of the group")
        with open(server.log, encoding="ascii") as log:
            return log.read()


@case
def a_group_is_heard_however_it_is_joined(test):
    for how in ("any", "by=10.9.0.2", "number=wire0", "group=wire0", "source=10.9.0.1"):
        for bound in ("", GROUP):
            for options in (ALL4, ["early"]):
                same(heard(test, "", bound, how, options), heard(test, "far", bound, how, options),
                     f"bound to {bound}, joined by {how}, {options}: what")


@case
def a_group_of_ipv6_is_heard(test):
    for how in ("number=wire0", "group=wire0"):
        for bound in ("::", GROUP6):
            same(heard(test, "", bound, how, ALL6, GROUP6), heard(test, "far", bound, how, ALL6, GROUP6),
                 f"bound to {bound}, joined by {how}: what")


harness.main()
