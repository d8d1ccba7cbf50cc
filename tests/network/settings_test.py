# SPDX-License-Identifier: BSD-2-Clause
"""What the administrator has set: the kernel's settings hold for Viaduct's connections too, and interfaces may have many
queues."""
import json
import os
import re
import sys

import harness
import machine
from harness import case, check
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]

# What the kernel at the other end sees of a connection and of a datagram: TCP_INFO's options, the hop count.
WITNESS = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((host, port))
u.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
s = socket.create_server((host, port))
c, _ = s.accept()
while c.recv(65536): pass
options = c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[5]; c.close()
_, ancillary, _, _ = u.recvmsg(100, 100)
print("timestamps", options & 1, "ecn", options & 8, "ttl", int.from_bytes(ancillary[0][2], sys.byteorder), flush=True)
"""

ASK = """
import socket, sys
to = (sys.argv[1], int(sys.argv[2]))
with socket.create_connection(to) as s: s.sendall(b"x" * 100000); s.shutdown(1); s.recv(1)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", to)
"""


def seen(test, settings):
    """What a plain far end sees of a near one under Viaduct."""
    with linked(test, "near", settings=settings) as link:
        port = link.port()
        witness = link.start("far", PYTHON + ["-c", WITNESS, link.address("far"), port], port)
        with link.carried(stray=2):  # the datagram may go by the kernel while the neighbour is not resolved
            link.run("near", PYTHON + ["-c", ASK, link.address("far"), port])
            witness.process.wait(10)
        return {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", witness.output())}


@case
def ecn_timestamps_and_hops_are_as_set_for_the_kernel(test):
    check(seen(test, []) == {"timestamps": 1, "ecn": 0, "ttl": 64}, "not the defaults")
    got = seen(test, ["net.ipv4.tcp_ecn=1", "net.ipv4.tcp_timestamps=0", "net.ipv4.ip_default_ttl=33"])
    check(got == {"timestamps": 0, "ecn": 8, "ttl": 33}, f"the far end sees {got}")


@case
def connections_over_an_interface_of_many_queues(test):
    with linked(test, "both", queues=8) as link:
        port = link.port()
        link.start("far", STREAM + ["serve", "0.0.0.0", port, 24], port)
        with link.carried():
            link.run("near", STREAM + ["fetch", link.address("far"), port, 24, 2000000])


@case
def queues_of_networks_leave_room_for_wires(test):
    """Three interfaces of 64 queues would be three quarters of all that a stack can have: the third is behind a veth."""
    with linked(test, "near", queues=64) as link:
        near, port = link.sides["near"], link.port()
        for name in ("more1", "more2"):
            near.ip("link", "add", name, "numrxqueues", "64", "numtxqueues", "64", "type", "veth", "peer", "name",
                    name + "p", "numrxqueues", "64", "numtxqueues", "64", "netns", str(link.sides["far"].holder.pid))
            near.ip("link", "set", name, "up")
            link.sides["far"].ip("link", "set", name + "p", "up")
        server = link.start("near", STREAM + ["serve", "0.0.0.0", port, 2], port)
        machine.run(link.sides["far"].inside(STREAM + ["fetch", link.address("near"), port, 1, 100000]), 30)
        text = machine.run(near.inside([harness.VIADUCT, "stat", "--json", server.process.pid]), 10)
        stack = json.loads(text)["stacks"][0]
        check(sorted((i["mode"], i["queues"]) for i in stack["interfaces"]) ==
              [("direct", 64), ("direct", 64), ("veth", 1)], f"{stack['interfaces']}")
        with harness.Watch(True) as watch:
            link.run("near", STREAM + ["fetch", "127.0.0.1", port, 1, 100000])
        check(watch.grown > 0, f"no wire {watch.trouble}")


harness.main()
