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
        introduce(link, to)
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


def beyond(test, accelerated, family, command, stray, knobs=()):
    """What the near side sees of a router, which is the far side."""
    with linked(test, accelerated) as link:
        near, far = link.sides["near"], link.sides["far"]
        for setting in ("ipv4.icmp_ratelimit=0", "ipv6.icmp.ratelimit=0", "ipv4.ip_forward=1",
                        "ipv4.conf.all.send_redirects=0", "ipv4.conf.wire0.send_redirects=0",
                        "ipv6.conf.all.forwarding=1"):
            machine.run(far.inside(["sysctl", "-qw", f"net.{setting}"]), 10)
        net, host = ("10.50.{}.0/24", "10.9.0.{}") if family == 4 else ("fd50:{}::/64", "fd09::{}")
        for kind, number in (("unreachable", 1), ("prohibit", 2)):
            far.ip("route", "add", kind, net.format(number))
        far.ip("route", "add", net.format(3), "via", host.format(1), "dev", "wire0", "mtu", "lock", "1300")
        for number in (1, 2, 3):
            near.ip("route", "add", net.format(number), "via", host.format(2))
        introduce(link, family)
        before = near.counters()
        seen = link.run("near", UDP + command, knobs=knobs)
        kernel = near.counters() - before
        check(not accelerated or kernel <= stray, f"the kernel has sent {kernel} datagrams")
        return seen


@case
def routers_errors_are_read_as_from_the_kernel(test):
    for family, to in ((4, "10.50.{}.1{}"), (6, "fd50:{}::1{}")):
        targets = [to.format(n, ttl) for n, ttl in ((1, ""), (2, ""), (3, "=1"))]
        command = ["far_away", family] + targets
        same(beyond(test, "", family, command, 0), beyond(test, "near", family, command, 1), f"IPv{family}: what")


@case
def what_is_too_large_is_refused_as_by_the_kernel(test):
    """IP_PMTUDISC_DONT, DO, PROBE, INTERFACE, OMIT; of WANT the engine differs: it lets routers cut."""
    for how in ("connected", "bound"):
        command = ["sizes", how, "10.50.3.1", 0, 2, 3, 4, 5]
        same(beyond(test, "", 4, command, 0), beyond(test, "near", 4, command, 40), f"IPv4, {how}: what")
        command = ["sizes", how, "fd50:3::1", 1, 2, 3, 4, 5]
        same(beyond(test, "", 6, command, 0), beyond(test, "near", 6, command, 40), f"IPv6, {how}: what")


@case
def an_error_of_the_kernels_half_is_seen_by_the_next_poll(test):
    """However seldom the kernel's half is looked at, where sockets of ours are ready."""
    command = ["sizes", "bound", "10.50.3.1", 3, 4]
    same(beyond(test, "", 4, command, 0), beyond(test, "near", 4, command, 20, ("POLL_KERNEL_US=1000000",)), "what")


@case
def options_of_the_kernel_alone_leave_a_socket_to_it(test):
    for to, when in ((4, "early"), (6, "late"), (4, "late")):
        seen = {}
        for accelerated in ("", "near", "both"):
            with linked(test, accelerated) as link:
                link.start("far", UDP + ["hear", to, 7000, 2 if when == "early" else 3], 7000, udp=True)
                seen[accelerated] = link.run("near", UDP + ["corked", link.address("far", to), 7000, when])
                if when == "late":  # a wire that a peer has already stays one
                    continue
                link.start("far", UDP + ["hear", to, 7003, 2 if when == "early" else 3], 7003, udp=True)
                seen[accelerated] += link.run("far", UDP + ["corked", link.address("far", to), 7003, when])
        same(seen[""], seen["near"], f"{to}, {when}: near: what")
        same(seen[""], seen["both"], f"{to}, {when}: both: what")


def told_here(test, accelerated, family, to, options):
    """The same between two programs of one machine, at loopback's addresses and at its own."""
    with linked(test, accelerated) as link:
        seen = ""
        addresses = ("127.0.0.1", link.address("far", 4)) if to == 4 else ("::1", link.address("far", 6))
        for n, address in enumerate(addresses):
            server = link.start("far", UDP + ["hear", family, 7000 + n, 12 if to == 4 else 11] + options, 7000 + n,
                                udp=True)
            before = link.sides["far"].counters()
            seen += link.run("far", UDP + ["say", address, 7000 + n])
            kernel = link.sides["far"].counters() - before
            check(not accelerated or kernel <= 12, f"the kernel has carried {kernel} datagrams")
            check(server.process.wait(20) == 0, server.output())
            with open(server.log, encoding="ascii") as log:
                seen += log.read()
        return seen


@case
def datagrams_that_the_sender_leaves_to_be_cut_come_one_by_one(test):
    for family in (4, 6):
        with linked(test, "far") as link:
            introduce(link, family)
            server = link.start("far", UDP + ["hear", family, 7000, 8], 7000, udp=True)
            link.run("near", UDP + ["segmented", link.address("far", family), 7000])
            server.process.wait(10)
            sizes = [line.split()[0] for line in server.output().split("\n")]
            same(["ready", "1000", "1000", "1000", "500", "100", "100", "100", "50"], sizes)


@case
def everything_is_told_on_one_machine(test):
    for family, to, options in ((4, 4, ALL4), (6, 6, ALL6), (6, 4, ALL4 + ALL6)):
        same(told_here(test, "", family, to, options), told_here(test, "far", family, to, options),
             f"IPv{to} to an IPv{family} socket: what")


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


def route_groups(link):
    for side in link.sides.values():
        side.ip("route", "add", "224.0.0.0/4", "dev", "wire0")


def publish(link, *texts, side="near", group=GROUP):
    family = 6 if ":" in group else 4
    link.run(side, UDP + ["publish", link.address(side, family), group, 7002] + list(texts))


def words(program):
    """The texts that a member has heard."""
    with open(program.log, encoding="ascii") as log:
        return [line.split()[0] for line in log if line != "ready\n"]


def started(program):
    """It has joined."""
    while "ready" not in program.output():
        check(program.process.poll() is None, program.output())
        time.sleep(0.02)
    return program


def until(program, *texts):
    """It has heard these, and nothing else."""
    end = time.monotonic() + 10
    while len(words(program)) < len(texts) and time.monotonic() < end:
        time.sleep(0.02)
    same(list(texts), words(program), "what was heard")


def joined(side, group=GROUP):
    """Is the kernel a member on that side, as /proc/net/igmp says?"""
    number = "".join(f"{int(part):02X}" for part in reversed(group.split(".")))
    with open(f"/proc/{side.holder.pid}/net/igmp", encoding="ascii") as table:
        return any(line.split()[0] == number for line in table)


def heard(test, accelerated, bound, how, options=(), group=GROUP, texts=("one", "two", "three", "end")):
    """What a member on the far side hears of what the near side publishes."""
    with linked(test, accelerated) as link:
        route_groups(link)
        server = started(link.start("far", UDP + ["member", bound, 7002, group, how] + list(options)))
        before = link.sides["far"].counters()
        publish(link, *texts, group=group)
        code = server.process.wait(20)
        seen = link.sides["far"].counters() - before
        check(code == 0, server.output())
        check(not accelerated or seen == 0, f"the kernel has seen {seen} datagrams of the group")
        with open(server.log, encoding="ascii") as log:
            return log.read()


@case
def a_group_is_heard_however_it_is_joined(test):
    for how, bound, options in (("any", "", ALL4), ("by=10.9.0.2", GROUP, ALL4), ("number=wire0", "", ["early"]),
                                ("group=wire0", GROUP, ["early"]), ("source=10.9.0.1", "", ALL4)):
        same(heard(test, "", bound, how, options), heard(test, "far", bound, how, options),
             f"bound to {bound}, joined by {how}, {options}: what")


@case
def a_group_of_ipv6_is_heard(test):
    for how, bound in (("number=wire0", "::"), ("group=wire0", GROUP6)):
        same(heard(test, "", bound, how, ALL6, GROUP6), heard(test, "far", bound, how, ALL6, GROUP6),
             f"bound to {bound}, joined by {how}: what")


@case
def sources_come_and_go(test):
    for accelerated in ("", "far"):
        with linked(test, accelerated) as link:
            route_groups(link)
            member = started(link.start("far", UDP + ["member", "", 7002, GROUP, "any"]))
            publish(link, "one", "block=10.9.0.1")
            time.sleep(0.3)
            publish(link, "unheard")
            until(member, "one", "block=10.9.0.1")
    for accelerated in ("", "far"):
        with linked(test, accelerated) as link:
            route_groups(link)
            member = started(link.start("far", UDP + ["member", "", 7002, GROUP, "source=10.9.0.7"]))
            publish(link, "unheard")
            link.sides["near"].ip("address", "add", "10.9.0.7/24", "dev", "wire0")
            link.run("near", UDP + ["publish", "10.9.0.7", GROUP, 7002, "heard", "leave"])
            end = time.monotonic() + 5
            while joined(link.sides["far"]):
                check(time.monotonic() < end, "the kernel is a member still")
                time.sleep(0.02)
            link.run("near", UDP + ["publish", "10.9.0.7", GROUP, 7002, "unheard"])
            until(member, "heard", "leave")


def beside(test, second):
    """One member, then another beside it, then the first alone again."""
    with linked(test, "far") as link:
        far = link.sides["far"]
        route_groups(link)
        check(not joined(far), "a member beforehand")
        command = UDP + ["member", "", 7002, GROUP, "any"]
        first = started(link.start("far", command))
        check(joined(far), "the kernel is no member")
        before = far.counters()
        publish(link, "one")
        until(first, "one")
        check(far.counters() == before, "the kernel has seen it")
        other = machine.Program(link.command("far", command) if second == "viaduct" else far.inside(command),
                                test.path("other"))
        test.programs.append(other)
        started(other)
        time.sleep(0 if second == "viaduct" else 0.4)  # viaductd looks again after 0.25 s
        publish(link, *[f"both{n}" for n in range(10)])
        until(first, "one", *[f"both{n}" for n in range(10)])
        until(other, *[f"both{n}" for n in range(10)])
        other.stop()
        time.sleep(0.5)
        before = far.counters()
        publish(link, "alone")
        until(first, "one", *[f"both{n}" for n in range(10)], "alone")
        check(far.counters() == before, "the kernel still serves who is alone")
        first.process.kill()
        first.process.wait()
        end = time.monotonic() + 5
        while joined(far):
            check(time.monotonic() < end, "the kernel stays a member of a dead program's group")
            time.sleep(0.05)


@case
def a_plain_member_beside_ours_hears_all(test):
    beside(test, "plain")


@case
def two_members_on_viaduct_hear_all(test):
    beside(test, "viaduct")


@case
def a_sender_on_the_same_machine_is_heard_as_well(test):
    with linked(test, "far") as link:
        route_groups(link)
        member = started(link.start("far", UDP + ["member", "", 7002, GROUP, "any"]))
        publish(link, "from far", side="near")
        publish(link, "near", side="far")
        machine.run(link.sides["far"].inside(UDP + ["publish", "10.9.0.2", GROUP, "7002", "plain"]), 10)
        until(member, "from", "near", "plain")


@case
def many_groups_of_one_socket(test):
    groups = ",".join(f"239.7.7.{n}" for n in range(20))
    with linked(test, "far") as link:
        route_groups(link)
        member = started(link.start("far", UDP + ["member", "", 7002, groups, "any"]))
        before = link.sides["far"].counters()
        publish(link, "word", group=groups)
        until(member, *["word"] * 20)
        check(link.sides["far"].counters() == before, "the kernel has seen some")


@case
def a_user_without_privileges_hears_a_group(test):
    with linked(test, "far") as link:
        far = link.sides["far"]
        route_groups(link)
        member = machine.Program(far.inside(["setpriv", "--reuid=65534", "--clear-groups", harness.VIADUCT, "run", "--",
                                             "/usr/bin/python3"] + UDP[1:] + ["member", "", 7002, GROUP, "any"]),
                                 test.path("member"))
        test.programs.append(member)
        started(member)
        time.sleep(0.1)
        before = far.counters()
        publish(link, "one", "two")
        until(member, "one", "two")
        check(far.counters() == before, "the kernel has seen it")


@case
def sockets_of_one_program_each_hear_the_group(test):
    with linked(test, "far") as link:
        far = link.sides["far"]
        route_groups(link)
        member = started(link.start("far", UDP + ["members", 7002, GROUP, 3]))
        before = far.counters()
        publish(link, "one", "two", "end")
        until(member, *[f"{n}:{text}" for n in range(3) for text in ("one", "two", "end")])
        check(far.counters() == before, "the kernel has seen it")


def quoted(test, accelerated, group, how):
    """What the far side hears of what the near side sends to a group, with IP_MULTICAST_LOOP off."""
    with linked(test, accelerated) as link:
        family = 6 if ":" in group else 4
        route_groups(link)
        member = machine.Program(link.sides["far"].inside(UDP + ["member", "::" if family == 6 else "", "7002", group,
                                                                 "number=wire0"] + (ALL4 if family == 4 else ALL6)),
                                 test.path("member"))
        test.programs.append(member)
        started(member)
        before = link.sides["near"].counters()
        said = link.run("near", UDP + ["quote", how, link.address("near", family), group, 7002, "one", "two", "end"])
        seen = link.sides["near"].counters() - before
        check(member.process.wait(20) == 0, member.output())
        check(not accelerated or how == "device" or seen == 0, f"the kernel has sent {seen} datagrams, {how}")
        with open(member.log, encoding="ascii") as log:
            return said + log.read()


@case
def a_group_is_sent_to_without_the_kernel(test):
    for how in ("number", "if", "connected", "bound", "device", "plain", "ttl"):
        same(quoted(test, "", GROUP, how), quoted(test, "near", GROUP, how), f"sent with {how}: what")


@case
def a_group_of_ipv6_is_sent_to_without_the_kernel(test):
    for how in ("plain", "ttl", "bound", "connected"):
        same(quoted(test, "", GROUP6, how), quoted(test, "near", GROUP6, how), f"sent with {how}: what")


@case
def an_interface_that_was_down_brings_the_group_again(test):
    with linked(test, "far") as link:
        far = link.sides["far"]
        route_groups(link)
        member = started(link.start("far", UDP + ["member", "", 7002, GROUP, "number=wire0"]))
        publish(link, "one")
        until(member, "one")
        far.ip("link", "set", "wire0", "down")
        time.sleep(0.2)
        far.ip("link", "set", "wire0", "up")
        time.sleep(0.5)
        before = far.counters()
        publish(link, "two")
        until(member, "one", "two")
        check(far.counters() == before, "the kernel has seen it")


@case
def another_viaductd_hears_of_the_groups(test):
    with linked(test, "far") as link:
        far = link.sides["far"]
        route_groups(link)
        member = started(link.start("far", UDP + ["member", "", 7002, GROUP, "any"]))
        publish(link, "one")
        until(member, "one")
        far.daemon.kill()
        far.daemon.wait()
        publish(link, "none")
        far.start_daemon()
        time.sleep(3)
        before = far.counters()
        publish(link, "two")
        until(member, "one", "none", "two")
        check(far.counters() == before, "the kernel has seen it")


harness.main()
