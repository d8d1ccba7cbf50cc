# SPDX-License-Identifier: BSD-2-Clause
"""Unmodified programs across a network: on Viaduct as server with a plain client, as client, and on both sides."""
import contextlib
import json
import os
import re
import signal
import sys
import time

import harness
import machine
from harness import case, check, need
from link import linked

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
STREAM = PYTHON + [os.path.join(HERE, "stream.py")]

NGINX = """
daemon off; worker_processes {workers}; pid {dir}/nginx.pid; error_log stderr warn; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; default_type application/octet-stream; keepalive_requests 1000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {host}:{port}; root {dir}/www; }}
}}
"""


def python_stream(link, family):
    port = link.port()
    link.start("far", STREAM + ["serve", link.address("far", family), port, 4], port)
    with link.carried():
        link.run("near", STREAM + ["fetch", link.address("far", family), port, 4, 3000000])


def redis(link, family):
    need("redis-server", "redis-benchmark")
    port = link.port()
    link.start("far", ["redis-server", "--port", port, "--bind", link.address("far", family), "--save", "",
                       "--appendonly", "no", "--protected-mode", "no", "--dir", link.test.directory], port)
    with link.carried():
        out = link.run("near", ["redis-benchmark", "-h", link.address("far", family), "-p", port, "-n", 20000, "-c", 20,
                                "-t", "set,get", "--csv"])
    check(out.count("\n") >= 3, out)


def nginx(link, family, workers=1):
    need("nginx", "curl", "wrk")
    port, address = link.port(), link.address("far", family)
    host = address if family == 4 else f"[{address}]"
    os.makedirs(link.test.path("www"))
    data = os.urandom(3 << 20)
    for name, size in (("small", 100), ("large", len(data))):
        with open(link.test.path("www/" + name), "wb") as out:
            out.write(data[:size])
    with open(link.test.path("nginx.conf"), "w", encoding="ascii") as conf:
        conf.write(NGINX.format(dir=link.test.directory, host=host, port=port, workers=workers))
    link.start("far", ["nginx", "-c", link.test.path("nginx.conf"), "-e", "stderr", "-p", link.test.directory], port)
    with link.carried():
        link.run("near", ["curl", "-sS", "-g", "-o", link.test.path("got"), f"http://{host}:{port}/large"])
        out = link.run("near", ["wrk", "-t1", "-c10", "-d1", f"http://{host}:{port}/small"])
    with open(link.test.path("got"), "rb") as got:
        check(got.read() == data, "the file came out different")
    check("Socket errors" not in out and "Non-2xx" not in out, out)
    check(int(re.search(r"(\d+) requests in", out).group(1)) > 100, out)


def nginx_two_workers(link, family):
    nginx(link, family, workers=2)


def workers_of(master):
    """nginx's workers, by pid, and whether they sleep: have come to where they wait for work."""
    found = {}
    for pid in harness.children_of(master):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                found[pid] = stat.read().rsplit(")", 1)[1].split()[0] == "S"
    return found


def await_workers(master, gone, count=2):
    end = time.monotonic() + 30
    while True:
        now = workers_of(master)
        if len(now) == count and not set(now) & gone and all(now.values()):
            return
        check(time.monotonic() < end, f"workers {now}, of which {gone} should be gone")
        time.sleep(0.05)


def await_forgotten(link, gone):
    """Their relatives know that they are gone, and have what they left."""
    end = time.monotonic() + 30
    while True:
        stacks = json.loads(machine.run(link.sides["far"].inside([harness.VIADUCT, "stat", "--json"]), 10))["stacks"]
        left = gone & {pid for stack in stacks for pid in stack["processes"]}
        if not left or not link.sides["far"].accelerated:
            return
        check(time.monotonic() < end, f"{left} are gone, and stacks have them still")
        time.sleep(0.05)


def nginx_reloads(link, family):
    """Old workers leave, new ones come, one is killed: no request fails but those on connections that are closed."""
    nginx(link, family, workers=2)
    host, port = link.address("far", family), link.last_port
    url = f"http://{host if family == 4 else f'[{host}]'}:{port}/small"
    with open(link.test.path("nginx.pid"), encoding="ascii") as pid:
        master = int(pid.read())
    for number in (signal.SIGHUP, signal.SIGHUP, None):
        before = list(workers_of(master))
        if number:
            os.kill(master, number)
        else:
            before = before[:1]
            os.kill(before[0], signal.SIGKILL)
        await_workers(master, set(before))
        await_forgotten(link, set(before))
        with link.carried():
            for _ in range(20):
                link.run("near", ["curl", "-sS", "-g", "-o", "/dev/null", "--max-time", "5", url])


def iperf3(link, family):
    need("iperf3")
    port, address = link.port(), link.address("far", family)
    link.start("far", ["iperf3", "-s", "-B", address, "-p", port], port)
    for options in ([], ["-R"], ["-P", "4"]):
        # its server listens anew for each test: an ACK that comes meanwhile, for a connection that is over, is refused
        with link.carried(stray=4):
            end = json.loads(link.run("near", ["iperf3", "-c", address, "-p", port, "-J", "-t", "1"] + options))["end"]
        check(end["sum_received"]["bytes"] > 10 << 20, f"hardly anything came: {end['sum_received']}")


def iperf3_udp(link, family):
    need("iperf3")
    port, address = link.port(), link.address("far", family)
    link.start("far", ["iperf3", "-s", "-B", address, "-p", port], port)
    with link.carried(stray=4):
        end = json.loads(link.run("near", ["iperf3", "-c", address, "-p", port, "-J", "-t", "1", "-u", "-b", "50M",
                                           "-l", "1400"]))["end"]
    check(end["sum"]["packets"] > 1000, f"hardly anything was sent: {end['sum']}")


def sockperf(link, family, *options):
    need("sockperf")
    port, address = link.port(), link.address("far", family)
    link.start("far", ["sockperf", "server", "-i", address, "-p", port, *options], port, udp=not options)
    with link.carried(stray=500):  # of 50,000 and more: the first ones go through the kernel, which resolves the neighbour
        out = link.run("near", ["sockperf", "ping-pong", "-i", address, "-p", port, "-t", "1", *options])
    check(re.search(r"# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0", out), out[-600:])


def sockperf_tcp(link, family):
    sockperf(link, family, "--tcp")


def netperf(link, family):
    need("netperf", "netserver")
    port, address = link.port(), link.address("far", family)
    link.start("far", ["netserver", "-D", "-L", address, "-p", port], port)
    for kind in ("TCP_RR", "TCP_CRR", "TCP_STREAM", "UDP_RR"):
        with link.carried(stray=4):
            out = link.run("near", ["netperf", f"-{family}", "-H", address, "-p", port, "-t", kind, "-l", "1", "-P", "0"])
        check(any(float(word) > 100 for word in out.split() if re.fullmatch(r"[\d.]+", word)), out)


PROGRAMS = (python_stream, redis, nginx, nginx_two_workers, nginx_reloads, iperf3, iperf3_udp, sockperf, sockperf_tcp, netperf)


def add(steps, accelerated, family):
    def function(test):
        with linked(test, accelerated) as link:
            steps(link, family)
    who = {"near": "client", "far": "server", "both": "both_sides"}[accelerated]
    function.__name__ = f"{steps.__name__}_{who}_ipv{family}"
    case(function)


for program in PROGRAMS:
    for where in ("far", "near", "both"):
        if program is nginx_reloads and where == "near":
            continue
        for ip in (4, 6) if program not in (sockperf, sockperf_tcp) else (4,):  # Debian's sockperf knows no IPv6
            add(program, where, ip)


def add_link(name, **how):
    def function(test):
        with linked(test, "both", **how) as link:
            for family in (4, 6):
                python_stream(link, family)
    function.__name__ = "python_stream_" + name
    case(function)


def received(pid):
    """Bytes and frames that have come over the interfaces of the process's stack."""
    stacks = json.loads(harness.machine.run([harness.VIADUCT, "stat", "--json"], 10))["stacks"]
    vnics = [vnic for stack in stacks if stack["pid"] == pid for vnic in stack["vnics"] if vnic["provider"] == "xdp"]
    return sum(vnic["rx_bytes"] for vnic in vnics), sum(vnic["rx_frames"] for vnic in vnics)


def large_segments_stay_whole(link, family):
    """A kernel that sends many segments as one does so to us, too, and ours send so: most of what comes over a veth is
    frames of many segments. Frames of one each would be 1514 bytes."""
    if tuple(int(n) for n in os.uname().release.split(".")[:2]) < (6, 6):
        raise harness.Skip("before Linux 6.6 a frame is a segment")
    stream, address, port = os.path.join(harness.BUILD, "bench", "bench-stream"), link.address("far", family), link.port()
    server = link.start("far", [stream, "server", address, port], port)
    with link.carried():
        link.run("near", [stream, "client", address, port, 65536, 0.5, "--verify"])
    size, frames = received(server.process.pid)
    check(size > 2000 * frames > 0, f"{size} bytes in {frames} frames")


for where in ("far", "both"):
    add(large_segments_stay_whole, where, 4)  # bench-stream knows no IPv6
add_link("jumbo", mtu=9000)
add_link("vlan", vlan=7)

harness.main()
