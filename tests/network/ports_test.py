# SPDX-License-Identifier: BSD-2-Clause
"""Ports and addresses across a network: who serves whom, and what options mean."""
import errno
import os
import sys
import time

import harness
import machine
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]

REUSEPORT = """
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind((sys.argv[1], int(sys.argv[2])))
s.listen(64); print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[3].encode()); c.close()
"""

CONNECT_WITH = """
import socket, sys
s = socket.socket()
{}
s.settimeout(10)
s.connect((sys.argv[1], int(sys.argv[2])))
s.sendall(b"x" * 100000); s.shutdown(1)
n = 0
while d := s.recv(65536): n += len(d)
assert n == 100000, n
print(s.getsockname()[1])
"""

MANY = """
import socket, sys
ports = set()
for _ in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
        ports.add(s.getsockname()[1]); s.sendall(b"x"); assert s.recv(1) == b"x"
print(min(ports), max(ports))
"""

UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
{}
s.bind((sys.argv[1], int(sys.argv[2])))
while True:
    d, p = s.recvfrom(65536); s.sendto(d, p)
"""

UDP_ASK = """
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
to = (sys.argv[1], int(sys.argv[2]))
say = lambda d: s.sendto(d, to)
{}
for n in [0, 1, 1000, 1472, 1473, 5000, 30000, 65507] * 10:
    d = os.urandom(n); say(d); assert s.recv(70000) == d, n
"""


def plain(link, side, command):
    return machine.run(link.sides[side].inside(command), 30)


@case
def one_listener_serves_the_network_loopback_and_wires(test):
    with linked(test, "far") as link:
        port = link.port()
        link.start("far", STREAM + ["serve", "0.0.0.0", port, 9], port)
        link.run("near", STREAM + ["fetch", link.address("far"), port, 2, 300000])
        plain(link, "far", STREAM + ["fetch", "127.0.0.1", port, 2, 300000])
        plain(link, "far", STREAM + ["fetch", link.address("far"), port, 1, 300000])
        link.run("far", STREAM + ["fetch", "127.0.0.1", port, 2, 300000])
        with link.carried():
            link.run("near", STREAM + ["fetch", link.address("far"), port, 2, 300000])
        check(link.sides["far"].resets() == 0, "the kernel has sent resets")


@case
def listener_of_both_families_serves_both(test):
    with linked(test, "far") as link:
        port = link.port()
        link.start("far", STREAM + ["serve", "::", port, 4], port)
        with link.carried():
            link.run("near", STREAM + ["fetch", link.address("far", 4), port, 2, 300000])
            link.run("near", STREAM + ["fetch", link.address("far", 6), port, 2, 300000])


@case
def two_processes_share_a_port(test):
    with linked(test, "far") as link:
        port = link.port()
        for name in ("first", "second"):
            server = link.start("far", PYTHON + ["-c", REUSEPORT, link.address("far"), port, name], port)
            end = time.monotonic() + 5
            while "ready" not in server.output():
                check(time.monotonic() < end, "not ready")
                time.sleep(0.02)
        ask = ("import socket, sys, collections\nn = collections.Counter()\nfor _ in range(60):\n"
               "  s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); n[s.recv(100).decode()] += 1\n"
               "print(n['first'], n['second'])")
        with link.carried():
            first, second = map(int, link.run("near", PYTHON + ["-c", ask, link.address("far"), port]).split())
        check(first + second == 60 and min(first, second) >= 5, f"{first} and {second}")


@case
def ports_are_of_the_kernels_range(test):
    with linked(test, "near") as link:
        machine.run(link.sides["near"].inside(["sysctl", "-qw", "net.ipv4.ip_local_port_range=41000 41100"]), 10)
        port = link.port()
        link.start("far", STREAM + ["serve", link.address("far"), port, 40], port)
        with link.carried():
            low, high = map(int, link.run("near", PYTHON + ["-c", MANY, link.address("far"), port, 40]).split())
        check(41000 <= low and high <= 41100, f"{low} to {high}")


def connects(test, setup, carried=True):
    with linked(test, "near") as link:
        port = link.port()
        link.start("far", STREAM + ["serve", link.address("far"), port, 1], port)
        command = PYTHON + ["-c", CONNECT_WITH.format(setup), link.address("far"), port]
        if carried:
            with link.carried():
                return int(link.run("near", command))
        before = link.sides["near"].counters()
        got = int(link.run("near", command))
        check(link.sides["near"].counters() - before > 10, "who carried that?")
        return got


@case
def client_that_binds_address_and_port(test):
    check(connects(test, "s.bind(('10.9.0.1', 45678))") == 45678, "another port")


@case
def client_that_binds_a_port(test):
    check(connects(test, "s.setsockopt(1, 2, 1); s.bind(('', 45679))") == 45679, "another port")


@case
def client_that_binds_an_address_without_port(test):
    connects(test, "s.setsockopt(0, 24, 1); s.bind(('10.9.0.1', 0))")


@case
def client_bound_to_the_device(test):
    connects(test, "s.setsockopt(1, 25, b'wire0')")


@case
def client_with_a_mark_is_the_kernels(test):
    connects(test, "s.setsockopt(1, 36, 7)", carried=False)


@case
def refused_and_unreachable_are_told(test):
    ask = ("import errno, socket, sys\n"
           "for to in sys.argv[1:]:\n"
           "  s = socket.socket(); s.settimeout(8)\n"
           "  try: s.connect((to, 9)); print('connected')\n"
           "  except OSError as e: print(errno.errorcode.get(e.errno, e))\n")
    outcomes = []
    for accelerated in ("", "near"):
        with linked(test, accelerated) as link:
            outcomes.append(link.run("near", PYTHON + ["-c", ask, link.address("far"), "10.9.0.77", "203.0.113.5"]))
    harness.same(*outcomes)


@case
def why_not_is_explained(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        side.daemon.terminate()
        side.daemon.wait()
        port = link.port()
        link.start("far", STREAM + ["serve", link.address("far"), port, 1], port)
        pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 8],
                            knobs=["NETWORK=off"])
        link.sides["far"].await_connection(port)
        pid = pacing.process.pid
        said = machine.run([harness.VIADUCT, "explain", str(pid)], 10)
        check("VIADUCT_NETWORK=off" in said, said)
        test.finish(pacing)


@case
def why_not_is_explained_of_accepted_connections(test):
    with linked(test, "far") as link:
        port = link.port()
        server = link.start("far", STREAM + ["serve", link.address("far"), port, 1], port, knobs=["NETWORK=off"])
        pacing = link.start("near", STREAM + ["pace", link.address("far"), port, 8])
        link.sides["far"].await_connection(port)
        said = machine.run([harness.VIADUCT, "explain", str(server.process.pid)], 10)
        check("VIADUCT_NETWORK=off" in said, said)
        test.finish(pacing)


@case
def required_network_is_not_left_to_the_kernel(test):
    with linked(test, "near") as link:
        side = link.sides["near"]
        port = link.port()
        link.start("far", STREAM + ["serve", link.address("far"), port, 1], port)
        side.daemon.terminate()
        side.daemon.wait()
        command = side.inside(["setpriv", "--reuid=65534", "--clear-groups", harness.VIADUCT, "run", "--set",
                               "NETWORK=require", "--", "/usr/bin/python3", "-c",
                               f"import socket; socket.create_connection(('{link.address('far')}', {port}), 5)"])
        try:
            machine.run(command, 10)
        except machine.Failed as failure:
            check("Network is down" in str(failure), str(failure))
        else:
            raise AssertionError("it connected")


@case
def required_network_is_not_left_to_the_kernel_for_an_option(test):
    with linked(test, "near") as link:
        port = link.port()
        link.start("far", STREAM + ["serve", link.address("far"), port, 1], port)
        code = "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1); " \
               f"print(s.connect_ex(('{link.address('far')}', {port})))"
        check(int(link.run("near", PYTHON + ["-c", code], knobs=["NETWORK=require"])) == errno.ENETDOWN, "not refused")


def datagrams(test, accelerated, server="", client=""):
    with linked(test, accelerated) as link:
        port = link.port()
        link.start("far", PYTHON + ["-c", UDP_ECHO.format(server), link.address("far"), port], port, udp=True)
        with link.carried(stray=140):
            link.run("near", PYTHON + ["-c", UDP_ASK.format(client), link.address("far"), port])


@case
def datagrams_of_all_sizes_to_a_server(test):
    datagrams(test, "far")


@case
def datagrams_of_all_sizes_from_a_client(test):
    datagrams(test, "near")


@case
def datagrams_of_all_sizes_between_both(test):
    datagrams(test, "both")


@case
def datagrams_of_a_connected_client(test):
    datagrams(test, "both", client="s.connect(to)\nsay = s.send")


@case
def shared_datagram_port(test):
    datagrams(test, "far", server="s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)")


@case
def datagram_port_of_others_too_stays_the_kernels(test):
    """With SO_REUSEADDR the kernel gives a datagram to the socket that was bound last, whoever's it is."""
    reuse = "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)"
    first = UDP_ECHO.format(reuse)
    with linked(test, "far") as link:
        port = link.port()
        plain_first = machine.Program(link.sides["far"].inside(PYTHON + ["-c", first, link.address("far"), port]),
                                      test.path("plain.log"))
        test.programs.append(plain_first)
        while not link.sides["far"].listening(port, udp=True):
            time.sleep(0.02)
        before = link.sides["far"].counters()
        link.start("far", PYTHON + ["-c", first, link.address("far"), port], port, udp=True)
        link.run("near", PYTHON + ["-c", UDP_ASK.format(""), link.address("far"), port])
        check(link.sides["far"].counters() - before >= 150, "who answered?")


harness.main()
