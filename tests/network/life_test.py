# SPDX-License-Identifier: BSD-2-Clause
"""Connections across a network when processes come and go: fork, death of either end, death of viaductd, no viaductd."""
import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import harness
import machine
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
STREAM = [sys.executable, "-B", os.path.join(HERE, "stream.py")]


def serve(link, count, how="serve"):
    port = link.port()
    return port, link.start("far", STREAM + [how, link.address("far"), port, count], port)


def attached(side):
    """What the kernel says of the interface: is a program on it?"""
    return "xdp" in machine.run(side.inside(["ip", "-d", "link", "show", "wire0"]), 10)


@case
def forked_servers_are_carried(test):
    with linked(test, "far") as link:
        port, server = serve(link, 6, "fork")
        with link.carried():
            link.run("near", STREAM + ["fetch", link.address("far"), port, 6, 300000])
        test.finish(server)
        check(link.sides["far"].resets() == 0, "the kernel has sent resets")


@case
def viaductd_is_killed_and_started_again(test):
    with linked(test, "both") as link:
        port, _ = serve(link, 8)
        with link.carried():
            pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 3])
            for name in ("far", "near"):
                link.sides[name].daemon.kill()
                link.sides[name].daemon.wait()
                time.sleep(0.3)
                link.sides[name].start_daemon()
                time.sleep(0.5)
            link.run("near", STREAM + ["fetch", link.address("far"), port, 3, 300000])
            check(int(test.finish(pacing)) > 500, "the connection stood still")
        for side in link.sides.values():
            check(side.resets() == 0, f"the kernel of the {side.name} side has sent resets")


@case
def viaductd_is_killed_again_and_again(test):
    """New connections all the time: those that begin while it is away are the kernel's, none may fail."""
    with linked(test, "both") as link:
        port, _ = serve(link, 4000)
        dice = random.Random(1)
        fetching = link.start("near", STREAM + ["fetch", link.address("far"), port, 3000, 50000])
        kills = 0
        while fetching.process.poll() is None and kills < 12:
            side = link.sides[dice.choice(("near", "far"))]
            time.sleep(dice.random() * 0.3)
            side.daemon.kill()
            side.daemon.wait()
            kills += 1
            time.sleep(dice.random() * 0.2)
            side.start_daemon()
        test.finish(fetching)
        check(kills > 2, f"only {kills} kills")


@case
def connections_go_on_without_viaductd(test):
    with linked(test, "far") as link:
        port, _ = serve(link, 3)
        pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 2])
        with link.carried():
            link.sides["far"].daemon.kill()
            link.sides["far"].daemon.wait()
            link.run("near", STREAM + ["fetch", link.address("far"), port, 1, 300000])
            check(int(test.finish(pacing)) > 300, "the connection stood still")


@case
def viaductd_that_hangs_holds_up_no_connection(test):
    with linked(test, "far") as link:
        port, _ = serve(link, 3)
        pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 5])
        daemon = link.sides["far"].daemon
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            with link.carried():
                link.run("near", STREAM + ["fetch", link.address("far"), port, 2, 300000])
            check(int(test.finish(pacing)) > 700, "the connection stood still")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)


# argv: address, two ports. It listens on the second when told to, and echoes what comes.
LISTEN_TWICE = """
import socket, sys, threading
def echo(connection):
    while part := connection.recv(1 << 16):
        connection.sendall(part)
    connection.close()
def serve(listener):
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
for port in sys.argv[2:]:
    listener = socket.socket()
    listener.bind((sys.argv[1], int(port)))
    listener.listen(64)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    sys.stdin.readline()
"""

# argv: address, port, seconds, pieces for each connection
CONNECT_AGAIN_AND_AGAIN = """
import os, socket, sys, threading, time
address, port, seconds, pieces = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
begun, faults, whole = time.time(), [], []
def talk():
    with socket.create_connection((address, port), 20) as c:
        for _ in range(pieces):
            data, got = os.urandom(20000), b""
            c.sendall(data)
            while len(got) < len(data) and (part := c.recv(1 << 16)):
                got += part
            assert got == data, f"{len(got)} bytes"
            time.sleep(0.01)
    whole.append(1)
def again():
    while time.time() - begun < seconds and not faults:
        try:
            talk()
        except ConnectionRefusedError: # not yet
            time.sleep(0.05)
        except Exception as error:
            faults.append(f"{error} after {time.time() - begun:.2f} s")
threads = [threading.Thread(target=again) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(len(whole), "whole", *faults)
"""


@case
def an_answer_that_comes_too_late_harms_no_connection(test):
    """viaductd stops for longer than the program waits, so its listener is the kernel's; then viaductd gives it the
    filter after all, connections come by that, and the program comes again."""
    with linked(test, "far") as link:
        side, ports = link.sides["far"], [link.port(), link.port()]
        command = link.command("far", [sys.executable, "-c", LISTEN_TWICE, link.address("far")] + [str(p) for p in ports])
        with open(test.path("server.log"), "wb") as log, subprocess.Popen(command, stdin=subprocess.PIPE,
                                                                          stdout=log, stderr=log) as server:
            try:
                harness.wait_until(lambda: side.listening(ports[0]), 30, "the server does not listen")
                meet = [sys.executable, "-c", CONNECT_AGAIN_AND_AGAIN, link.address("far")]
                link.run("near", meet + [str(ports[0]), "0.1", "1"])
                os.kill(side.daemon.pid, signal.SIGSTOP)
                server.stdin.write(b"\n")
                server.stdin.flush()
                client = link.start("near", meet + [str(ports[1]), "7", "30"])
                time.sleep(4)
                os.kill(side.daemon.pid, signal.SIGCONT)
                out = test.finish(client)
            finally:
                os.kill(side.daemon.pid, signal.SIGCONT)
                server.kill()
        check(out.split()[1:] == ["whole"] and int(out.split()[0]) > 20, out)


@case
def without_viaductd_the_kernel_serves(test):
    with linked(test, "far") as link:
        side = link.sides["far"]
        side.daemon.terminate()
        side.daemon.wait()
        port = link.port()
        link.start("far", STREAM + ["serve", link.address("far"), port, 1], port, knobs=["NETWORK=off"])
        before = side.counters()
        link.run("near", STREAM + ["fetch", link.address("far"), port, 1, 300000])
        check(side.counters() - before > 50, "who carried that?")


@case
def what_was_sent_arrives_after_the_end(test):
    size = 2000000
    with linked(test, "near") as link:
        port = link.port()
        reader = link.start("far", STREAM + ["drink", link.address("far"), port, 0], port)
        link.run("near", STREAM + ["pour", link.address("far"), port, size])
        check(test.finish(reader) == hashlib.sha256(random.Random(size).randbytes(size)).hexdigest(),
              "not all arrived")


@case
def a_program_ends_at_once_and_its_peer_gets_all(test):
    size = 60000
    with linked(test, "near") as link:
        port = link.port()
        reader = link.start("far", STREAM + ["drink", link.address("far"), port, 4], port)
        began = time.monotonic()
        link.run("near", STREAM + ["pour", link.address("far"), port, size])
        check(time.monotonic() - began < 3, "it waited for its peer")
        check(test.finish(reader) == hashlib.sha256(random.Random(size).randbytes(size)).hexdigest(),
              "not all arrived")


def switches(pid):
    """How often the process's threads have gone to sleep."""
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as status:
            count += sum(int(line.split()[1]) for line in status if "voluntary_ctxt" in line)
    return count


@case
def idle_programs_sleep(test):
    idle = ("import socket, sys, time\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "s.sendall(b'x'); s.recv(1); s.recv(1)")
    with linked(test, "both") as link:
        port, server = serve(link, 1)
        client = link.start("near", [sys.executable, "-c", idle, link.address("far"), port])
        time.sleep(3)
        before = [switches(program.process.pid) for program in (server, client)]
        time.sleep(4)
        after = [switches(program.process.pid) for program in (server, client)]
        check(all(late - early <= 4 for early, late in zip(before, after)), f"woke up: {before}, then {after}")


@case
def killed_server_resets_its_connections(test):
    for accelerated in ("", "far"):
        with linked(test, accelerated) as link:
            port, server = serve(link, 1)
            pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 60])
            link.sides["near"].await_connection(port)
            time.sleep(0.5)
            os.killpg(server.process.pid, 9)
            check(pacing.process.wait(30) != 0, "the client did not hear of it")
            said = pacing.output()
            check("reset" in said or "the end came" in said, said)


@case
def killed_client_is_heard_of(test):
    with linked(test, "near") as link:
        port, server = serve(link, 1)
        pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 60])
        link.sides["far"].await_connection(port)
        time.sleep(0.5)
        os.killpg(pacing.process.pid, 9)
        server.process.wait(30)


@case
def nothing_remains_on_the_interface(test):
    with linked(test, "far") as link:
        port, server = serve(link, 1)
        side = link.sides["far"]
        check(attached(side), "no program on the interface: what was this test to see?")
        link.run("near", STREAM + ["fetch", link.address("far"), port, 1, 10000])
        test.finish(server)
        side.daemon.terminate()
        side.daemon.wait(20)
        end = time.monotonic() + 20
        while attached(side):
            check(time.monotonic() < end, "a program is still on the interface")
            time.sleep(0.1)


@case
def a_listener_can_be_started_again_at_once(test):
    with linked(test, "far") as link:
        port = link.port()
        for _ in range(3):
            server = link.start("far", STREAM + ["serve", link.address("far"), port, 1], port)
            with link.carried():
                link.run("near", STREAM + ["fetch", link.address("far"), port, 1, 100000])
            test.finish(server)


@case
def the_port_is_nobody_elses(test):
    with linked(test, "far") as link:
        port, _ = serve(link, 1)
        taken = link.sides["far"].inside([sys.executable, "-c", "import socket\nsocket.socket().bind(('', %d))" % port])
        try:
            machine.run(taken, 10)
        except machine.Failed as failure:
            check("Address already in use" in str(failure), str(failure))
        else:
            raise AssertionError("a plain program got the port of an accelerated listener")


harness.main()
