# SPDX-License-Identifier: BSD-2-Clause
"""The workloads: how each starts its server, runs its client, and reads the figure out of the client's output.

A workload's client may run several commands (a warm-up, a check of the bytes); the last figure counts. `floor` names
the line of bench-floor that it is compared with, in the workload's own unit (see floor_of).
"""
import json
import os
import re
import shutil

from machine import Failed

HOST = "127.0.0.1"


class Workload:
    """One row of the table. better is "less" or "more"."""

    name = unit = better = floor = title = ""
    needs = ()  # programs
    udp = False
    forks = False  # a child of the server serves the client

    def missing(self):
        return [program for program in self.needs if not shutil.which(program)]

    def server(self, run):
        raise NotImplementedError

    def client(self, run):
        """The figure."""
        raise NotImplementedError


def number(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise Failed(f"no figure in the output: {text[-400:].strip()}")
    return float(found.group(1))


class Sockperf(Workload):
    unit, better, floor, needs = "us", "less", "pingpong", ("sockperf",)

    def __init__(self, udp):
        self.udp = udp
        self.name = "sockperf-udp" if udp else "sockperf-tcp"
        self.title = f"sockperf {'UDP' if udp else 'TCP'} ping-pong 64 B, round trip"
        self.flags = [] if udp else ["--tcp"]

    def server(self, run):
        return ["sockperf", "server", "-i", HOST, "-p", str(run.port)] + self.flags

    def client(self, run):
        out = run.command(["sockperf", "ping-pong", "-i", HOST, "-p", str(run.port), "-m", "64",
                           "--mps=5000000",  # unpaced it gives up beyond 600,000 messages a second
                           "-t", str(max(1, round(run.seconds)))] + self.flags)
        return 2 * number(r"percentile 50\.000 =\s+([0-9.]+)", out)  # it prints half the round trip


class Netperf(Workload):
    better, needs, forks = "more", ("netperf", "netserver"), True

    def __init__(self, test, unit, floor, flags, title):
        self.test, self.unit, self.floor, self.flags = test, unit, floor, flags
        self.name = "netperf-" + test.lower().replace("_", "-")
        self.title = f"netperf {test} {title}"

    def server(self, run):
        return ["netserver", "-D", "-4", "-L", HOST, "-p", str(run.port)]

    def netperf(self, run, length):
        """Its length in seconds, or, negative, in transactions."""
        out = run.command(["netperf", "-4", "-H", HOST, "-p", str(run.port), "-t", self.test, "-l", str(length),
                           "--"] + self.flags + ["-k", "THROUGHPUT"])
        return number(r"(?m)^THROUGHPUT=([0-9.]+)", out)

    def client(self, run):
        if self.test == "TCP_CRR":  # by time, its server waits four seconds more for the end
            rate = self.netperf(run, -2000)  # slow, as all begins; the next says how many fill the time
            rate = self.netperf(run, -max(2000, int(0.3 * rate * run.seconds)))
            return self.netperf(run, -max(2000, int(rate * run.seconds)))
        figure = self.netperf(run, max(1, round(run.seconds)))
        return figure / 1000 if self.unit == "Gbit/s" else figure


class Iperf3(Workload):
    name, title, unit, better, floor, needs = "iperf3", "iperf3, one stream", "Gbit/s", "more", "copy", ("iperf3",)

    def server(self, run):
        return ["iperf3", "-s", "-4", "-B", HOST, "-p", str(run.port)]

    def client(self, run):
        out = run.command(["iperf3", "-4", "-c", HOST, "-p", str(run.port), "-J", "-t",
                           str(max(1, round(run.seconds)))])
        return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 1e9


class Stream(Workload):
    better = "more"

    def __init__(self, size, label, nodelay=False):
        self.size, self.options = size, ["--nodelay"] if nodelay else []
        self.name = f"stream-{label}" + ("-nodelay" if nodelay else "")
        self.title = f"one direction, {label} writes".replace("k", " KB").replace("64 writes", "64 B writes")
        self.title += ", TCP_NODELAY" if nodelay else ""
        self.unit, self.floor = ("writes/s", "messages") if size == 64 else ("Gbit/s", "copy")

    def server(self, run):
        return [run.program("stream"), "server", HOST, str(run.port)]

    def client(self, run):
        base = [run.program("stream"), "client", HOST, str(run.port), str(self.size)]
        out = run.command(base + [str(run.seconds)] + self.options)
        run.command(base + ["0.2", "--verify"] + self.options)
        return number(r"writes_per_s ([0-9.]+)" if self.size == 64 else r"gbit_per_s ([0-9.]+)", out)


class Pingpong(Workload):
    name, title = "pingpong", "plain blocking send and recv, 64 B, round trip"
    unit, better, floor = "us", "less", "pingpong"

    def server(self, run):
        return [run.program("pingpong"), "server", HOST, str(run.port)]

    def client(self, run):
        out = run.command([run.program("pingpong"), "client", HOST, str(run.port), "64", str(run.seconds)])
        return number(r"p50_ns ([0-9]+)", out) / 1000


class Redis(Workload):
    unit, better, floor, needs = "requests/s", "more", "rate", ("redis-server", "redis-benchmark")

    def __init__(self, test, clients, pipeline):
        self.test, self.clients, self.pipeline = test, clients, pipeline
        self.name = f"redis-{test}-{clients}" + (f"-p{pipeline}" if pipeline > 1 else "")
        self.title = f"redis-benchmark {test.upper()}, {clients} client{'s' if clients > 1 else ''}" + (
            f", pipeline {pipeline}" if pipeline > 1 else "")

    def server(self, run):
        return ["redis-server", "--port", str(run.port), "--bind", HOST, "--save", "", "--appendonly", "no",
                "--daemonize", "no", "--protected-mode", "no", "--dir", run.directory]

    def requests(self, run, count):
        out = run.command(["redis-benchmark", "-h", HOST, "-p", str(run.port), "-t", self.test, "-n", str(count),
                           "-c", str(self.clients), "-P", str(self.pipeline), "--csv"])
        return number(rf'"{self.test.upper()}","([0-9.]+)"', out)

    def client(self, run):
        # its length is a number of requests: a short run tells how many fill the time
        rate = self.requests(run, 4000 * self.pipeline)
        return self.requests(run, max(4000, int(rate * run.seconds)))


class Nginx(Workload):
    unit, better, floor, needs = "requests/s", "more", "rate", ("nginx", "wrk")
    config = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr warn; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; default_type text/plain; sendfile on;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {host}:{port}; root {dir}/www; }}
}}
"""

    def __init__(self, keep_alive):
        self.keep_alive = keep_alive
        self.name = "nginx-keepalive" if keep_alive else "nginx-close"
        self.title = "nginx + wrk, " + ("keep-alive" if keep_alive else "a connection per request")

    def server(self, run):
        os.makedirs(run.directory + "/www", exist_ok=True)
        with open(run.directory + "/www/index.txt", "w", encoding="ascii") as page:
            page.write("0123456789abcde\n" * 64)
        with open(run.directory + "/nginx.conf", "w", encoding="ascii") as conf:
            conf.write(self.config.format(dir=run.directory, host=HOST, port=run.port, user="user root;"))
        return ["nginx", "-c", run.directory + "/nginx.conf", "-e", "stderr", "-p", run.directory]

    def client(self, run):
        close = [] if self.keep_alive else ["-H", "Connection: close"]
        out = run.command(["wrk", "-t", "1", "-c", "50", "-d", str(max(1, round(run.seconds)))] + close +
                          [f"http://{HOST}:{run.port}/index.txt"])
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        if errors and any(int(group) for group in errors.groups()) or "Non-2xx" in out:
            raise Failed(f"wrk saw errors: {out[-300:].strip()}")
        return number(r"Requests/sec:\s+([0-9.]+)", out)


ALL = [
    Sockperf(False), Sockperf(True), Pingpong(),
    Netperf("TCP_RR", "transactions/s", "rate", ["-r", "64,64"], "64 B"),
    Netperf("UDP_RR", "transactions/s", "rate", ["-r", "64,64"], "64 B"),
    Netperf("TCP_CRR", "transactions/s", "rate", ["-r", "64,64"], "64 B"),
    Netperf("TCP_STREAM", "Gbit/s", "copy", ["-m", "65536"], "64 KB"),
    Iperf3(),
    Stream(64, "64"), Stream(64, "64", True), Stream(2048, "2k"), Stream(16384, "16k"), Stream(65536, "64k"),
    Redis("get", 1, 1), Redis("set", 1, 1), Redis("get", 50, 1), Redis("set", 50, 1),
    Redis("get", 50, 16), Redis("set", 50, 16),
    Nginx(True), Nginx(False),
]

QUICK = ["sockperf-tcp", "netperf-tcp-rr", "netperf-tcp-crr", "stream-64", "stream-64-nodelay", "stream-64k",
         "redis-get-1", "redis-get-50", "redis-get-50-p16"]


def floor_of(workload, placement, floor):
    """The machine's own figure for this kind of work, in the workload's unit."""
    pingpong = floor[f"pingpong_{placement}_ns"]
    return {
        "pingpong": pingpong / 1000,
        "rate": 1e9 / pingpong,
        "copy": floor["copy2_gbit" if placement == "two" else "copy2_one_gbit"],
        "messages": floor["messages_per_s"],
    }[workload.floor]
