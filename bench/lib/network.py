# SPDX-License-Identifier: BSD-2-Clause
"""bench/run --network: the workloads across a veth, kernel and Viaduct in turn.

Two network namespaces joined by a veth (MTU 1500, default offloads): the server in one, the client in the other, each on
a CPU of its own. `ends` says who runs under Viaduct: both, the server, or the client; the others are the kernel's. A
Viaduct run counts only if, in the namespace of each accelerated end, the kernel's TCP and UDP sent (nearly) nothing
and the frames of vNICs of provider xdp grew.
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time

import machine
import report
import workloads
from machine import Failed

SERVER, CLIENT = "198.18.7.1", "198.18.7.2"
STRAY_SEGMENTS = 50  # what the kernel may send in an accelerated namespace
RATE = 2000  # requests per second where CPU time is compared
OFFLOADS = ("tso", "gso", "gro")


class Net:
    """Two namespaces, the server's and the client's, and the veth between. New for each run: what the dead left (an XDP
    program that serves connections in TIME-WAIT) must not be in the way of the next."""

    def __init__(self, offloads):
        self.holder = {end: self.namespace() for end in ("server", "client")}
        client, server = self.enter("client"), self.enter("server")
        self.run(client + f"ip link add bench0 type veth peer name bench1 netns {self.holder['server'].pid}".split())
        for prefix, device, address in ((client, "bench0", CLIENT), (server, "bench1", SERVER)):
            self.run(prefix + f"ip address add {address}/24 dev {device}".split())
            for name in OFFLOADS if not offloads else ():
                self.run(prefix + f"ethtool -K {device} {name} off".split())
            self.run(prefix + f"ip link set {device} up".split())
            self.run(prefix + "ip link set lo up".split())
        # the kernels resolve each other; nobody listens there
        self.run(client + ["bash", "-c", f"for i in 1 2; do echo >/dev/udp/{SERVER}/9; sleep 0.1; done"])

    @staticmethod
    def namespace():
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            time.sleep(0.01)
        return holder

    def enter(self, end):
        return ["nsenter", f"--net=/proc/{self.holder[end].pid}/ns/net"]

    @staticmethod
    def run(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")

    def close(self):
        """Everything that lives in the two namespaces: viaductd too, where viaduct run started it."""
        for holder in self.holder.values():
            space = os.readlink(f"/proc/{holder.pid}/ns/net")
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    if os.readlink(f"/proc/{pid}/ns/net") == space:
                        os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass  # it is gone
            holder.wait()

    def sent(self, end):
        """Segments and datagrams that the kernel's own stack has sent in the namespace of that end."""
        with open(f"/proc/{self.holder[end].pid}/net/snmp", encoding="ascii") as table:
            rows = [line.split() for line in table]
        total = 0
        for protocol, name in (("Tcp:", "OutSegs"), ("Udp:", "OutDatagrams")):
            names, values = [row for row in rows if row[0] == protocol]
            total += int(values[names.index(name)])
        return total

    def listening(self, port, udp):
        state = "07" if udp else "0A"
        for suffix in ("", "6"):
            path = f"/proc/{self.holder['server'].pid}/net/{'udp' if udp else 'tcp'}{suffix}"
            with open(path, encoding="ascii") as table:
                for line in table:
                    fields = line.split()
                    if fields[1].endswith(f":{port:04X}") and fields[3] == state:
                        return True
        return False


def xdp_frames(viaduct):
    """Frames over vNICs of interfaces, by stack."""
    try:
        stacks = json.loads(machine.run([viaduct, "stat", "--json"], 10))["stacks"]
        return {(stack["pid"], vnic["index"]): vnic["tx_frames"] + vnic["rx_frames"]
                for stack in stacks for vnic in stack["vnics"] if vnic["provider"] == "xdp"}
    except (ValueError, LookupError, TypeError) as error:
        raise Failed(f"viaduct stat --json has not what is needed: {error!r}") from None


class Run:
    """One server and its clients. `ends`: the set of ends under Viaduct."""

    last_port = 21000

    def __init__(self, options, net, ends, directory, profile=None):
        Run.last_port += 1
        self.port = Run.last_port
        self.options, self.net, self.ends, self.directory = options, net, ends, directory
        self.seconds, self.profile = options.seconds, profile or options.profile
        self.seen, self.server_pid = {}, 0

    def program(self, name):
        return os.path.join(self.options.build, "bench", "bench-" + name)

    def wrapped(self, end, command):
        prefix = self.net.enter(end) + ["taskset", "-c", "0" if end == "server" else "1"]
        if end in self.ends:
            prefix += [self.options.viaduct, "run"]
            if self.profile:
                prefix += ["--profile", self.profile]
            prefix.append("--")
        return prefix + command

    def look(self):
        """Counters of stacks that may be gone afterwards."""
        try:
            self.seen.update(xdp_frames(self.options.viaduct))
        except Failed:
            pass  # then prove() finds too few frames

    def command(self, command):
        timer = threading.Timer(0.6 * self.seconds, self.look)
        if self.ends:
            timer.start()
        try:
            return machine.run(self.wrapped("client", command), self.options.limit)
        finally:
            timer.cancel()

    def wait_for(self, server, udp):
        end = time.monotonic() + 10
        while not self.net.listening(self.port, udp):
            if server.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"the server does not listen: {server.output()}")
            time.sleep(0.02)
        time.sleep(0.1)

    def measure(self, workload):
        server = machine.Program(self.wrapped("server", workload.server(self)), self.directory + "/server.log")
        self.server_pid = server.process.pid
        try:
            self.wait_for(server, workload.udp)
            sent = {end: self.net.sent(end) for end in ("server", "client")}
            before = xdp_frames(self.options.viaduct) if self.ends else {}
            figure = workload.client(self)
            self.prove(sent, before)
            return figure
        except Failed as failure:
            raise Failed(f"{failure} [server: {server.output() or 'silent'}]") from None
        finally:
            server.stop()

    def prove(self, sent, before):
        for end in ("server", "client"):
            grown = self.net.sent(end) - sent[end]
            if end in self.ends and grown > STRAY_SEGMENTS:
                raise Failed(f"not accelerated: the {end}'s kernel sent {grown} segments")
            if end not in self.ends and grown <= STRAY_SEGMENTS:
                raise Failed(f"the {end}'s kernel sent only {grown} segments in its own run")
        if not self.ends:
            return
        self.look()
        grown = sum(n - before.get(vnic, 0) for vnic, n in self.seen.items())
        if grown <= STRAY_SEGMENTS:
            raise Failed(f"not accelerated: the vNICs' counters grew by {grown} frames")


class PacedRedis(workloads.Redis):
    """Redis at a fixed rate: CPU time of the server's process per request."""

    better, unit, floor = "less", "us", None

    def __init__(self):
        super().__init__("get", 1, 1)
        self.name, self.title = "redis-cpu", f"redis GET at {RATE}/s, CPU time of the server per request"

    def client(self, run):
        out = run.command([sys.executable, os.path.join(os.path.dirname(__file__), "paced.py"), SERVER, str(run.port),
                           str(RATE), str(run.seconds), str(run.server_pid)])
        return workloads.number(r"cpu_us ([0-9.]+)", out)


def table():
    """(workload, ends under Viaduct, at least, the kernel's offloads, profile)."""
    both, server, client = {"server", "client"}, {"server"}, {"client"}
    tcp, udp, paced = workloads.Sockperf(False), workloads.Sockperf(True), PacedRedis()
    known = {workload.name: workload for workload in workloads.ALL}
    rows = [(tcp, both, 5, True, None), (udp, both, 5, True, None), (tcp, server, 1.5, True, None),
            (udp, server, 1.5, True, None), (tcp, client, 1.5, True, None), (udp, client, 1.5, True, None),
            (known["netperf-tcp-rr"], both, 5, True, None), (known["netperf-tcp-crr"], both, 4, True, None),
            (known["netperf-tcp-stream"], both, 1.2, False, None), (known["netperf-tcp-stream"], both, None, True, None),
            (known["redis-get-1"], server, 1.5, True, None), (known["redis-get-50"], server, 1.3, True, None),
            (paced, server, 1, True, None), (paced, server, 1, True, "cpu")]
    return rows


QUICK = ("sockperf-tcp", "netperf-tcp-rr", "netperf-tcp-crr", "netperf-tcp-stream", "redis-get-1", "redis-get-50")


def floor_of(workload, ends, floor):
    """Bare frames over AF_XDP at both ends, in the workload's unit; None where that says nothing."""
    if len(ends) < 2 or not floor:
        return None
    pingpong = floor["xdp_pingpong_ns"]
    return {"pingpong": pingpong / 1000, "rate": 1e9 / pingpong, "copy": floor["xdp_full_gbit"]}.get(workload.floor)


def measure_floor(options):
    """bench-xdp-floor, which makes a veth of its own."""
    try:
        out = machine.run([os.path.join(options.build, "bench", "bench-xdp-floor"), "100" if options.quick else "300"], 60)
        floor = {name: float(value) for name, value in (line.split() for line in out.splitlines())}
    except (Failed, OSError, ValueError) as error:
        report.say(f"no floor: {error}")
        return {}
    report.say("floor: " + ", ".join(f"{name} {report.short(value)}" for name, value in floor.items()))
    return floor


def one_round(options, row, stack, directory_of):
    workload, ends, _, offloads, profile = row
    net = Net(offloads or stack == "viaduct")
    try:
        with directory_of() as directory:
            os.chmod(directory, 0o755)
            if stack == "kernel":
                return Run(options, net, set(), directory).measure(workload)
            return Run(options, net, ends, directory, profile).measure(workload)
    finally:
        net.close()


def rounds_of(options, row, directory_of, errors):
    workload, ends = row[:2]
    figures = {"kernel": [], "viaduct": []}
    label = "+".join(sorted(ends))
    for number in range(options.rounds):
        for stack in ("kernel", "viaduct"):
            try:
                figure = one_round(options, row, stack, directory_of)
                figures[stack].append(figure)
                text = report.short(figure) + " " + workload.unit
            except Failed as failure:
                text = f"ERROR: {failure}"
                errors.append({"workload": workload.name, "ends": label, "stack": stack, "round": number + 1,
                               "error": str(failure)})
            report.say(f"  {workload.name} {label} round {number + 1}/{options.rounds} {stack:8} {text}")
        if number == 1 and not all(figures.values()):
            break  # it fails each time: two tries say enough
    return figures


def result_of(row, figures, floor):
    workload, ends, least, offloads, profile = row
    one = {"workload": workload.name, "title": workload.title, "ends": "both" if len(ends) == 2 else min(ends),
           "unit": workload.unit, "better": workload.better, "least": least, "kernel_offloads": offloads,
           "profile": profile or "default", "floor": floor_of(workload, ends, floor)}
    if not offloads:
        one["title"] += ", kernel without TSO, GSO, GRO"
    if profile:
        one["title"] += f", profile {profile}"
    for stack, values in figures.items():
        if values:
            one[stack] = report.summary(values)
    if one.get("viaduct") and one.get("kernel"):
        one["ratio"] = report.ratio(workload.better, one["viaduct"]["median"], one["kernel"]["median"])
    if one.get("viaduct") and one["floor"]:
        one["floor_multiple"] = report.ratio(workload.better, one["floor"], one["viaduct"]["median"])
    return one


def rows_of(results):
    yield ["workload", "unit", "under Viaduct", "kernel", "Viaduct", "times better", "at least", "floor",
           "Viaduct / floor"]
    for one in results:
        yield [one["title"], one["unit"], one["ends"],
               report.spread(one["kernel"]) if one.get("kernel") else "-",
               report.spread(one["viaduct"]) if one.get("viaduct") else "not measured",
               f"{one['ratio']:.2f}" if one.get("ratio") else "-",
               f"{one['least']}" if one["least"] else "-",
               report.short(one["floor"]) if one["floor"] else "-",
               f"{one['floor_multiple']:.1f}" if one.get("floor_multiple") else "-"]


def chosen(options):
    names = options.workloads.split(",") if options.workloads else QUICK if options.quick else None
    rows = [row for row in table() if not names or row[0].name in names]
    unknown = set(names or ()) - {row[0].name for row in table()}
    if unknown:
        raise SystemExit(f"no network workload {' '.join(unknown)}; there are: "
                         + " ".join(dict.fromkeys(row[0].name for row in table())))
    if options.quick and not options.workloads:  # each workload once
        rows = list({row[0].name: row for row in reversed(rows)}.values())[::-1]
    return rows


def measure(options, directory_of):
    """All rows. (results, errors, skipped, floor)."""
    workloads.HOST = SERVER
    floor = measure_floor(options)
    results, errors, skipped = [], [], []
    for row in chosen(options):
        missing = row[0].missing()
        if missing:
            skipped.append({"workload": row[0].name, "why": f"not installed: {' '.join(missing)}"})
            continue
        results.append(result_of(row, rounds_of(options, row, directory_of, errors), floor))
    return results, errors, skipped, floor
