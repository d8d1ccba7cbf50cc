# SPDX-License-Identifier: BSD-2-Clause
"""Programs on Viaduct that die: their peers, plain programs on another machine, see what the kernel would show them, and
of the dead nothing remains."""
import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import harness
from harness import case, check
from link import finishers, linked, status

DEATHS = [sys.executable, "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "deaths.py")]
SHORT = ("TIME_WAIT_MS=300",)
KILLS = 20


def until(condition, seconds, text):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, text() if callable(text) else text)
        time.sleep(0.02)


def children(side):
    """Those who finish the connections of the dead."""
    return harness.children_of(side.daemon.pid)


def adopted(side):
    """Who finishes the connections of the only dead program."""
    until(lambda: children(side), 30, "nobody finishes the connection")
    return children(side)[0]


def attached(side):
    """Does an XDP program of viaductd's stand on the interface?"""
    out = subprocess.run(side.inside(["ip", "-d", "link", "show", "wire0"]), capture_output=True, check=True).stdout
    return b"xdp" in out


def nothing_remains(side):
    until(lambda: not children(side), 15, lambda: f"viaductd still has children {children(side)}")
    until(lambda: not attached(side), 30, "an XDP program remains")


def resets(side):
    """Connections of the kernel's that a peer has reset, or that reset a peer."""
    with open(f"/proc/{side.holder.pid}/net/snmp", encoding="ascii") as table:
        names, values = (line.split() for line in table if line.startswith("Tcp:"))
    return int(values[names.index("EstabResets")])


def number(path):
    with open(path, encoding="ascii") as file:
        return int(file.read())


def outcome(program):
    """Bytes and end that `receive` printed."""
    got, how = program.output().split(maxsplit=1)
    return int(got), how


def receiver(link, pause):
    port = link.port()
    return link.start("far", DEATHS + ["receive", link.address("far"), port, pause], port), port


def ended(program, seconds=30):
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.process.wait(seconds)
    check(program.process.poll() is not None, f"no end: {program.output()}")


@case
def all_that_send_took_arrives_after_a_kill_and_then_the_end(test):
    with linked(test, "near") as link:
        far, port = receiver(link, 1.5)
        near = link.start("near", DEATHS + ["fill", link.address("far"), port, test.path("sent")], knobs=SHORT)
        with link.carried():
            ended(near)
            check(near.process.returncode == -signal.SIGKILL, near.output())
            adopted(link.sides["near"])
            ended(far)
        check(outcome(far) == (number(test.path("sent")), "end"), f"{outcome(far)} of {number(test.path('sent'))}")
        nothing_remains(link.sides["near"])


@case
def the_same_for_a_user_without_rights(test):
    os.chmod(test.directory, 0o777)
    with linked(test, "near") as link:
        side = link.sides["near"]
        far, port = receiver(link, 1.5)
        # root's own python may be out of others' reach
        command = [harness.VIADUCT, "run", "--set", SHORT[0], "--", "/usr/bin/python3", "-B", DEATHS[-1], "fill",
                   link.address("far"), port, test.path("sent")]
        user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--"]
        near = harness.machine.Program(side.inside(user + command), test.path("near.log"))
        test.programs.append(near)
        with link.carried():
            ended(near)
            check(near.process.returncode == -signal.SIGKILL, near.output())
            adopted(side)
            ended(far)
        check(outcome(far) == (number(test.path("sent")), "end"), f"{outcome(far)} of {number(test.path('sent'))}")
        nothing_remains(side)


@case
def a_server_with_many_connections_is_killed(test):
    with linked(test, "near") as link:
        port, address = link.port(), link.address("near")
        server = link.start("near", DEATHS + ["serve", address, port], port, knobs=SHORT)
        readers = [link.start("far", [sys.executable, "-c", READ_SLOWLY, address, str(port), "1.5"]) for _ in range(10)]
        for reader in readers:
            until(lambda reader=reader: "hello" in reader.output(), 30, reader.output)
        time.sleep(0.2)
        server.process.kill()
        ended(server)
        for reader in readers:
            ended(reader)
            got, how = reader.output().split()[-2:]
            # far more than a window: what the dead had queued has come
            check(how == "end" and int(got) > 200000, reader.output())
        nothing_remains(link.sides["near"])


@case
def a_peer_that_is_gone_too_is_given_up(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        _, port = receiver(link, 60)
        near = link.start("near", DEATHS + ["fill", link.address("far"), port, test.path("sent")],
                          knobs=SHORT + ("RETRIES2=3",))
        ended(near)
        adopted(side)
        link.sides["far"].ip("link", "set", "wire0", "down")
        began = time.monotonic()
        nothing_remains(side)
        check(time.monotonic() - began > 1, "given up at once")


@case
def a_kill_at_a_random_moment_never_looks_like_a_reset(test):
    with linked(test, "near") as link:
        for i in range(KILLS):
            far, port = receiver(link, 0)
            path = test.path(f"sent-{i}")
            near = link.start("near", DEATHS + ["send", link.address("far"), port, path], knobs=SHORT)
            until(lambda path=path: os.path.exists(path), 30, near.output)
            time.sleep(random.random() * 0.1)
            near.process.kill()
            ended(near)
            ended(far)
            got, how = outcome(far)
            # one more send may have returned than was noted
            check(how == "end" and 0 <= got - number(path) <= 60000, f"{got} {how} of {number(path)}")
        nothing_remains(link.sides["near"])


def both_ways(test, accelerated):
    """An echoing server on the far side, a client that sends and reads; the one on Viaduct is killed, and the other
    hears of it."""
    here = os.path.dirname(os.path.abspath(__file__))
    with linked(test, accelerated) as link:
        for _ in range(KILLS):
            port, address = link.port(), link.address("far")
            far = link.start("far", [sys.executable, "-B", os.path.join(here, "stream.py"), "serve", address, port, 1],
                             port, knobs=SHORT)
            near = link.start("near", [sys.executable, "-B", os.path.join(here, "pump.py"), address, port, 30, 50000],
                              knobs=SHORT)
            until(lambda near=near: "started" in near.output(), 30, near.output)
            time.sleep(random.random() * 0.1)
            dead, other = (near, far) if accelerated == "near" else (far, near)
            dead.process.kill()
            ended(dead)
            ended(other, 10)
        nothing_remains(link.sides[accelerated])


@case
def a_kill_of_a_client_while_data_flows_both_ways_is_heard_of(test):
    both_ways(test, "near")


@case
def a_kill_of_a_server_while_data_flows_both_ways_is_heard_of(test):
    both_ways(test, "far")


@case
def unread_data_means_reset(test):
    with linked(test, "near") as link:
        port = link.port()
        link.start("far", DEATHS + ["serve", link.address("far"), port], port)
        near = link.start("near", DEATHS + ["unread", link.address("far"), port], knobs=SHORT)
        until(lambda: "ready" in near.output(), 30, near.output)
        before = resets(link.sides["far"])
        near.process.kill()
        ended(near)
        until(lambda: resets(link.sides["far"]) == before + 1, 30, "the peer was not reset")
        nothing_remains(link.sides["near"])


@case
def a_server_can_be_started_again_while_connections_of_the_dead_go_on(test):
    with linked(test, "near") as link:
        port, address = link.port(), link.address("near")
        serve = DEATHS + ["serve", address, port]
        first = link.start("near", serve, port, knobs=SHORT)
        far = link.start("far", [sys.executable, "-c", READ_SLOWLY, address, str(port), "3"])
        until(lambda: "hello" in far.output(), 30, far.output)
        first.process.kill()
        ended(first)
        adopted(link.sides["near"])
        # what is seen to listen from now on is the second one
        until(lambda: not link.sides["near"].listening(port), 30, "the dead's socket still listens")
        second = link.start("near", serve, port, knobs=SHORT)
        out = link.run("far", [sys.executable, "-c", READ_SLOWLY, address, str(port), "0", "1000"])
        check("hello" in out, out)
        ended(far)
        check("end" in far.output(), far.output())
        check(second.process.poll() is None, second.output())


# argv: address, port, pause, how much is enough
READ_SLOWLY = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(c.recv(6), flush=True)
time.sleep(float(sys.argv[3]))
enough, got = int(sys.argv[4]) if len(sys.argv) > 4 else 1 << 40, 0
try:
    while got < enough and (part := c.recv(65536)):
        got += len(part)
    print(got, "end")
except ConnectionResetError:
    print(got, "reset")
"""


@case
def short_lived_programs_do_not_pile_up(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        for i in range(14):
            far, port = receiver(link, 0)
            # TIME-WAIT as it is: a minute
            near = link.start("near", DEATHS + ["send", link.address("far"), port, test.path(f"sent-{i}")])
            until(lambda path=test.path(f"sent-{i}"): os.path.exists(path), 30, near.output)
            near.process.kill()
            ended(near)
            ended(far)
        until(lambda: len(children(side)) <= 8, 30, lambda: f"{len(children(side))} wait")
        check(children(side), "nobody waits in TIME-WAIT")


@case
def who_only_waits_behind_a_veth_is_not_ended_for_queues_that_he_does_not_have(test):
    with linked(test, "near") as link:
        side, address = link.sides["near"], link.address("near")
        ports = [link.port(), link.port()]
        first = link.start("near", DEATHS + ["serve", address, ports[0]], ports[0], knobs=SHORT)  # has the queues
        far, port = receiver(link, 0)
        near = link.start("near", DEATHS + ["send", link.address("far"), port, test.path("sent")])
        until(lambda: os.path.exists(test.path("sent")), 30, near.output)
        near.process.kill()
        ended(near)
        ended(far)
        child = adopted(side)
        time.sleep(0.3)  # it has said by then that it only waits
        third = link.start("near", DEATHS + ["serve", address, ports[1]], ports[1], knobs=SHORT)
        for port in ports:
            out = link.run("far", [sys.executable, "-c", READ_SLOWLY, address, str(port), "0", "1000"])
            check("hello" in out, out)
        check(children(side) == [child], f"{children(side)} instead of {child}")
        check(first.process.poll() is None and third.process.poll() is None, first.output() + third.output())


@case
def what_is_being_finished_goes_on_without_viaductd(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        far, port = receiver(link, 1.5)
        near = link.start("near", DEATHS + ["fill", link.address("far"), port, test.path("sent")], knobs=SHORT)
        with link.carried():
            ended(near)
            adopted(side)
            side.daemon.kill()
            side.daemon.wait()
            check(attached(side), "no XDP program is left")
            ended(far)
        check(outcome(far) == (number(test.path("sent")), "end"), f"{outcome(far)} of {number(test.path('sent'))}")
        until(lambda: not finishers(side), 30, "the child waits for nothing but TIME-WAIT, and for nobody")
        until(lambda: not attached(side), 30, "an XDP program remains")


@case
def what_is_being_finished_comes_to_the_next_viaductd(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        port, address = link.port(), link.address("near")
        server = link.start("near", DEATHS + ["serve", address, port], port, knobs=SHORT)
        readers = [link.start("far", [sys.executable, "-c", READ_SLOWLY, address, str(port), "4"]) for _ in range(3)]
        for reader in readers:
            until(lambda reader=reader: "hello" in reader.output(), 30, reader.output)
        server.process.kill()
        ended(server)
        child = adopted(side)
        for _ in range(2):
            side.daemon.kill()
            side.daemon.wait()
            side.start_daemon()
            until(lambda: status(side)[1:] == (1, 3), 30, lambda: f"stacks, orphans, filters: {status(side)}")
            check(finishers(side) == [child], f"{finishers(side)} instead of {child}")
        # the port is free for the next server, and its connections are other ones
        until(lambda: not side.listening(port), 30, "the dead's socket still listens")
        second = link.start("near", DEATHS + ["serve", address, port], port, knobs=SHORT)
        check("hello" in link.run("far", [sys.executable, "-c", READ_SLOWLY, address, str(port), "0", "1000"]), "")
        check(second.process.poll() is None, second.output())
        for reader in readers:
            ended(reader)
            got, how = reader.output().split()[-2:]
            check(how == "end" and int(got) > 200000, reader.output())
        second.process.kill()
        until(lambda: child not in finishers(side), 30, "the child does not end")
        until(lambda: status(side) == (0, 0, 0), 30, lambda: f"stacks, orphans, filters: {status(side)}")


def stack_of(pid):
    """The program's stack, opened to be written."""
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if "memfd:viaduct:stack" in os.readlink(f"/proc/{pid}/fd/{entry}"):
                return os.open(f"/proc/{pid}/fd/{entry}", os.O_RDWR)
    raise AssertionError("the program has no stack")


def scribble(memory, seed):
    """Garbage where the dead had its state, but so that it is still taken for a stack."""
    garbage, size = random.Random(seed), os.fstat(memory).st_size
    with contextlib.suppress(OSError):
        for _ in range(3000):
            at = garbage.choice((garbage.randrange(4096, 1 << 20), garbage.randrange(4096, size - 8)))
            os.pwrite(memory, garbage.choice((bytes(4), b"\xff" * 4, garbage.randbytes(4))), at // 4 * 4)


@case
def garbage_in_the_memory_of_the_dead_harms_nobody(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        for seed in range(8):
            far, port = receiver(link, 0)
            path = test.path(f"sent-{seed}")
            near = link.start("near", DEATHS + ["send", link.address("far"), port, path], knobs=SHORT)
            until(lambda path=path: os.path.exists(path), 30, near.output)
            near.process.send_signal(signal.SIGSTOP)
            memory = stack_of(near.process.pid)
            scribble(memory, seed)
            os.close(memory)
            near.process.kill()
            ended(near)
            far.stop()
        until(lambda: not children(side), 60, "a child never ends")
        check(side.daemon.poll() is None, "viaductd is gone")
        far, port = receiver(link, 1)
        near = link.start("near", DEATHS + ["fill", link.address("far"), port, test.path("sent")], knobs=SHORT)
        with link.carried():
            ended(near)
            ended(far)
        check(outcome(far) == (number(test.path("sent")), "end"), f"{outcome(far)}")
        nothing_remains(side)


harness.main()
