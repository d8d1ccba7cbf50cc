# SPDX-License-Identifier: BSD-2-Clause
"""SIGKILL on either side: the other side sees what the kernel would show it, and nothing remains (the harness looks)."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import harness
from harness import HOST, both, case, check, need, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
PEER = [sys.executable, "-B", os.path.join(HERE, "peer.py")]
CROWD = [sys.executable, "-B", os.path.join(HERE, "crowd.py")]
CONNECTIONS = 50
KILLS = 50
KILLS_SECONDS = 30
SOCKETS_KEPT = 256  # closed TCP sockets that a process may keep for its next ones; those of wires have names
REAPED_SECONDS = 5  # after which nothing of a dead peer is left


def survivor(victim_listens, victim, survivor_role, seconds=0.5):
    """What the survivor prints after the victim was killed, on each stack; the same on both."""
    def steps(test):
        port = test.port()
        roles = (victim, survivor_role) if victim_listens else (survivor_role, victim)
        listening = test.start(PEER + ["listen", port, roles[0]], port)
        connecting = test.start(PEER + ["connect", port, roles[1]])
        dying, living = (listening, connecting) if victim_listens else (connecting, listening)
        with test.carried():
            end = time.monotonic() + 10
            while not (dying.output().startswith("ready") and living.output().startswith("ready")):
                check(time.monotonic() < end, "the two did not connect")
                time.sleep(0.02)
            time.sleep(seconds)
        # `viaduct run` becomes the program, so this is the program itself
        os.kill(dying.process.pid, signal.SIGKILL)
        return test.finish(living)
    both(steps)


@case
def receiver_sees_all_bytes_then_the_end():
    survivor(True, "send", "take")
    survivor(False, "send", "take")


@case
def sender_sees_a_reset_when_data_was_unread():
    survivor(True, "slow", "send")
    survivor(False, "slow", "send")


@case
def sender_that_polls_sees_it_too():
    survivor(False, "slow", "sendpoll")


@case
def waiting_reader_sees_the_end():
    survivor(True, "unread", "hold")
    survivor(False, "unread", "hold")


@case
def waiting_epoll_wakes():
    survivor(True, "unread", "poll")
    survivor(False, "unread", "poll")


@case
def unread_greeting_at_the_victim_resets():
    def steps(test):
        port = test.port()
        dying = test.start(PEER + ["listen", port, "unread"], port)
        living = test.start(PEER + ["connect", port, "greet"])
        time.sleep(0.5)
        os.kill(dying.process.pid, signal.SIGKILL)
        time.sleep(0.3)
        return living.process.poll()
    both(steps)


@case
def server_dies_and_a_new_one_is_reached():
    def steps(test):
        found = []
        port = test.port()
        for _ in range(3):
            server = test.start(PEER + ["listen", port, "greet"], port)
            client = test.start(PEER + ["connect", port, "first"])
            found.append(test.finish(client).splitlines()[1])
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
        return found
    both(steps)


def held(pid):
    """What a process has of Viaduct's: descriptors, wires mapped, vNICs in use, abstract sockets of the machine."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as table:
        wires = sum("viaduct:wire" in line for line in table)
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        names = sum("@viaduct" in line for line in table)
    found = {"wires": wires, "names": names, "sockets": 0, "other descriptors": 0}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            is_socket = os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:")
            found["sockets" if is_socket else "other descriptors"] += 1
    stat = subprocess.run([harness.VIADUCT, "stat", "--json"], capture_output=True, timeout=10, check=True)
    for stack in json.loads(stat.stdout)["stacks"]:
        if stack["pid"] == pid:
            found["vnics"] = len(stack["vnics"])
    return found


def says(program, word, times):
    wait_until(lambda: program.whole_output().count(word) >= times, 10,
               lambda: f"not {times} times '{word}': {program.output()}")


def no_growth(test, pid, before):
    """All that was of dead peers is gone after a while."""
    if test.stack == "viaduct":
        check(before.get("vnics") is not None, "the survivor has no stack")
        before["sockets"] += SOCKETS_KEPT
        before["other descriptors"] += 2  # the doorbells of one wire, as it dies
        wait_until(lambda: all(now <= before[name] for name, now in held(pid).items()), REAPED_SECONDS,
                   lambda: f"grew from {before} to {held(pid)}")


def kill(program):
    os.kill(program.process.pid, signal.SIGKILL)
    program.process.wait()


@case
def server_outlives_fifty_killed_clients():
    """Each with 50 connections in mid-transfer; the server hears of the end of each, and serves the next one."""
    def steps(test):
        port, began = test.port(), time.monotonic()
        server = test.start(CROWD + ["serve", port, CONNECTIONS], port)
        for i in range(KILLS):
            client = test.start(CROWD + ["load", port, CONNECTIONS])
            says(client, "running", 1)
            if i == 1:
                before = held(server.process.pid)
            kill(client)
            says(server, "ended", i + 1)
        check(time.monotonic() - began < KILLS_SECONDS, f"{KILLS} kills took {time.monotonic() - began:.0f} s")
        no_growth(test, server.process.pid, before)
        return server.whole_output()
    both(steps)


@case
def client_outlives_fifty_killed_servers():
    def steps(test):
        port, began = test.port(), time.monotonic()
        client = test.start(CROWD + ["load", port, CONNECTIONS, KILLS])
        for i in range(KILLS):
            server = test.start(CROWD + ["serve", port, CONNECTIONS])
            says(client, "running", i + 1)
            if i == 1:
                before = held(client.process.pid)
            if i == KILLS - 1:
                no_growth(test, client.process.pid, before)
            kill(server)
            says(client, "ended", i + 1)
        check(time.monotonic() - began < KILLS_SECONDS, f"{KILLS} kills took {time.monotonic() - began:.0f} s")
        return test.finish(client)
    both(steps)


@case
def redis_outlives_killed_clients():
    def steps(test):
        need("redis-server", "redis-benchmark", "redis-cli")
        port = test.port()
        server = test.start(["redis-server", "--port", port, "--bind", HOST, "--dir", test.directory, "--save", ""], port)

        def clients():
            info = test.run(["redis-cli", "-p", port, "info", "clients"])
            return [int(line.split(":")[1]) for line in info.splitlines() if line.startswith("connected_clients")][0]

        for i in range(10):
            load = test.start(["redis-benchmark", "-p", port, "-c", CONNECTIONS, "-n", "10000000", "-q", "-t", "set,get"])
            wait_until(lambda: clients() > CONNECTIONS, 10, "the clients did not connect")
            if i == 1:
                before = held(server.process.pid)
            kill(load)
            wait_until(lambda: clients() == 1, 10, "the server still counts dead clients")
        test.run(["redis-benchmark", "-p", port, "-c", CONNECTIONS, "-n", "20000", "-q", "-t", "set,get"])
        no_growth(test, server.process.pid, before)
    both(steps)


if __name__ == "__main__":
    harness.main()
