# SPDX-License-Identifier: BSD-2-Clause
"""Measuring programs: iperf3, sockperf, netperf. What they verify of their own traffic must hold."""
import json
import re

import harness
from harness import HOST, both, case, check, need


def iperf3(test, *options):
    need("iperf3")
    port = test.port()
    test.start(["iperf3", "-s", "-4", "-B", HOST, "-p", port], port)
    with test.carried():
        out = json.loads(test.run(["iperf3", "-4", "-c", HOST, "-p", port, "-J", *(options or ("-t", "1"))]))
    check("error" not in out, out.get("error"))
    return out["end"]


@case
def iperf3_one_stream():
    def steps(test):
        end = iperf3(test)
        check(end["sum_received"]["bytes"] > 1 << 20, "hardly anything was received")
        return "done"
    both(steps)


@case
def iperf3_backwards():
    def steps(test):
        check(iperf3(test, "-t", "1", "-R")["sum_received"]["bytes"] > 1 << 20, "hardly anything was received")
        return "done"
    both(steps)


@case
def iperf3_four_streams():
    def steps(test):
        end = iperf3(test, "-t", "1", "-P", "4")
        check(all(stream["receiver"]["bytes"] > 0 for stream in end["streams"]), "a stream starved")
        return len(end["streams"])
    both(steps)


@case
def iperf3_limited_bytes():
    """The server stops counting when the client says that it is done, so it may report a little less, on the kernel too."""
    def steps(test):
        end = iperf3(test, "-n", "50M")
        return end["sum_sent"]["bytes"] >= 50 << 20 and end["sum_received"]["bytes"] >= 40 << 20
    both(steps)


@case
def iperf3_udp():
    def steps(test):
        end = iperf3(test, "-t", "1", "-u", "-b", "50M")
        return end["sum"]["lost_packets"]
    both(steps)


# without a rate, sockperf's ping-pong gives up beyond 600,000 messages a second
FAST = ("--mps=5000000",)


def sockperf(test, mode, tcp, *options):
    need("sockperf")
    port, flags = test.port(), ["--tcp"] if tcp else []
    test.start(["sockperf", "server", "-i", HOST, "-p", port] + flags, port, udp=not tcp)
    with test.carried():
        out = test.run(["sockperf", mode, "-i", HOST, "-p", port, "-t", "1", *flags, *options])
    return out


@case
def sockperf_ping_pong_loses_nothing():
    def steps(test):
        faults = []
        for tcp in (True, False):
            out = sockperf(test, "ping-pong", tcp, "-m", "64", *FAST)
            faults.append(re.findall(r"# (dropped|duplicated|out-of-order) messages = (\d+)", out))
        return faults
    both(steps)


@case
def sockperf_checks_its_data():
    def steps(test):
        return "errors" in sockperf(test, "ping-pong", True, "-m", "1400", "--data-integrity", *FAST).lower()
    both(steps)


@case
def sockperf_under_load():
    def steps(test):
        out = sockperf(test, "under-load", True, "-m", "200", "--mps", "2000")
        return re.findall(r"# (dropped|duplicated|out-of-order) messages = (\d+)", out)
    both(steps)


def netperf(test, kind, *options):
    need("netperf", "netserver")
    port = test.port()
    test.start(["netserver", "-D", "-4", "-L", HOST, "-p", port], port)
    with test.carried():
        out = test.run(["netperf", "-4", "-H", HOST, "-p", port, "-t", kind, "-l", "1", "--", *options, "-k", "THROUGHPUT"])
    return float(re.search(r"(?m)^THROUGHPUT=([0-9.]+)", out).group(1)) > 0


@case
def netperf_requests():
    both(lambda test: [netperf(test, kind, "-r", "64,64") for kind in ("TCP_RR", "UDP_RR")])


@case
def netperf_connections():
    both(lambda test: netperf(test, "TCP_CRR", "-r", "64,64"))


@case
def netperf_streams_both_ways():
    both(lambda test: [netperf(test, kind) for kind in ("TCP_STREAM", "TCP_MAERTS")])


if __name__ == "__main__":
    harness.main()
