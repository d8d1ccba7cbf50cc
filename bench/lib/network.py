# SPDX-License-Identifier: BSD-2-Clause
"""bench/run --network: the workloads across a veth, kernel and Viaduct in turn.

Two network namespaces joined by a veth (MTU 1500, default offloads): the server in one, the client in the other, each on
a CPU of its own. `ends` says who runs under Viaduct: both, the server, or the client; the others are the kernel's. A
Viaduct run counts only if, in the namespace of each accelerated end, the kernel's TCP and UDP sent (nearly) nothing
and the frames of vNICs of provider xdp grew.
"""
import json
import os
import socket
import subprocess
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
    """The other namespace (the server's), and the veth between."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == own:
            time.sleep(0.01)
        self.there = ["nsenter", "--net=/proc/%d/ns/net" % self.holder.pid]
        self.run([], "ip link add bench0 type veth peer name bench1 netns %d" % self.holder.pid)
        for prefix, device, address in (([], "bench0", CLIENT), (self.there, "bench1", SERVER)):
            self.run(prefix, f"ip address add {address}/24 dev {device}")
            self.run(prefix, f"ip link set {device} up")
            self.run(prefix, "ip link set lo up")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", (SERVER, 9))  # the kernels resolve each other
        time.sleep(0.2)

    @staticmethod
    def run(prefix, command):
        done = subprocess.run(prefix + command.split(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{command}: {done.stderr.strip()}")

    def offloads(self, on):
        """TSO, GSO and GRO of both ends."""
        for prefix, device in (([], "bench0"), (self.there, "bench1")):
            for one in OFFLOADS:
                self.run(prefix, f"ethtool -K {device} {one} {'on' if on else 'off'}")

    def sent(self, end):
        """Segments and datagrams that the kernel's own stack has sent in the namespace of that end."""
        pid = self.holder.pid if end == "server" else os.getpid()
        with open(f"/proc/{pid}/net/snmp", encoding="ascii") as table:
            rows = [line.split() for line in table]
        total = 0
        for protocol, name in (("Tcp:", "OutSegs"), ("Udp:", "OutDatagrams")):
            names, values = [row for row in rows if row[0] == protocol]
            total += int(values[names.index(name)])
        return total

    def listening(self, port, udp):
        state = "07" if udp else "0A"
        for suffix in ("", "6"):
            path = f"/proc/{self.holder.pid}/net/{'udp' if udp else 'tcp'}{suffix}"
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
        prefix = self.net.there[:] if end == "server" else []
        prefix += ["taskset", "-c", "0" if end == "server" else "1"]
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


def cpu_ns(pid):
    """What a process and its threads have used, to the nanosecond."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as text:
            total += int(text.read().split()[0])
    return total


class PacedRedis(workloads.Redis):
    """Redis at a fixed rate: CPU time of the server's process per request."""

    better, unit, floor = "less", "us", None

    def __init__(self):
        super().__init__("get", 1, 1)
        self.name, self.title = "redis-cpu", f"redis GET at {RATE}/s, CPU time of the server per request"

    def client(self, run):
        request = b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"
        with socket.create_connection((SERVER, run.port), timeout=5) as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            count = max(1, int(RATE * run.seconds))
            began, used = time.monotonic(), cpu_ns(run.server_pid)
            for i in range(count):
                time.sleep(max(0, began + i / RATE - time.monotonic()))
                c.sendall(request)
                if c.recv(100) != b"$-1\r\n":
                    raise Failed("redis gave another answer")
            used = cpu_ns(run.server_pid) - used
            if time.monotonic() - began > 1.3 * run.seconds:
                raise Failed("the rate could not be kept")
        return used / count / 1000


def table():
    """(workload, ends under Viaduct, at least, the kernel's offloads, profile)."""
    both, server, client = {"server", "client"}, {"server"}, {"client"}
    tcp, udp = workloads.Sockperf(False), workloads.Sockperf(True)
    known = {workload.name: workload for workload in workloads.ALL}
    rows = [(tcp, both, 5, True, None), (udp, both, 5, True, None), (tcp, server, 1.5, True, None),
            (udp, server, 1.5, True, None), (tcp, client, 1.5, True, None), (udp, client, 1.5, True, None),
            (known["netperf-tcp-rr"], both, 5, True, None), (known["netperf-tcp-crr"], both, 4, True, None),
            (known["netperf-tcp-stream"], both, 1.2, False, None), (known["netperf-tcp-stream"], both, None, True, None),
            (known["redis-get-1"], server, 1.5, True, None), (known["redis-get-50"], server, 1.3, True, None),
            (PacedRedis(), server, 1, True, None), (PacedRedis(), server, 1, True, "cpu")]
    return rows


QUICK = ("sockperf-tcp", "netperf-tcp-rr", "netperf-tcp-crr", "netperf-tcp-stream", "redis-get-1", "redis-get-50")


def floor_of(workload, floor):
    """A frame's round trip over AF_XDP, in the workload's unit; None where it says nothing."""
    pingpong = floor.get("xdp_pingpong_ns")
    if not pingpong:
        return None
    return {"pingpong": pingpong / 1000, "rate": 1e9 / pingpong}.get(workload.floor)


def measure_floor(options, net):
    """bench-xdp-floor, in both namespaces of the veth."""
    program = os.path.join(options.build, "bench", "bench-xdp-floor")
    if not os.path.exists(program):
        return {}
    try:
        out = machine.run([program, "bench0", "bench1", str(net.holder.pid)], 60)
        return {name: float(value) for name, value in (line.split() for line in out.splitlines())}
    except (Failed, ValueError) as error:
        report.say(f"no floor: {error}")
        return {}


def rounds_of(options, net, row, directory_of, errors):
    workload, ends, _, offloads, profile = row
    figures = {"kernel": [], "viaduct": []}
    label = "+".join(sorted(ends))
    for number in range(options.rounds):
        for stack in ("kernel", "viaduct"):
            plain = stack == "kernel" and not offloads
            try:
                if plain:
                    net.offloads(False)
                with directory_of() as directory:
                    os.chmod(directory, 0o755)
                    under = ends if stack == "viaduct" else set()
                    figure = Run(options, net, under, directory, profile if under else None).measure(workload)
                figures[stack].append(figure)
                text = report.short(figure) + " " + workload.unit
            except Failed as failure:
                text = f"ERROR: {failure}"
                errors.append({"workload": workload.name, "ends": label, "stack": stack, "round": number + 1,
                               "error": str(failure)})
            finally:
                if plain:
                    net.offloads(True)
            report.say(f"  {workload.name} {label} round {number + 1}/{options.rounds} {stack:8} {text}")
        if number == 1 and not all(figures.values()):
            break  # it fails each time: two tries say enough
    return figures


def result_of(row, figures, floor):
    workload, ends, least, offloads, profile = row
    one = {"workload": workload.name, "title": workload.title, "ends": "both" if len(ends) == 2 else min(ends),
           "unit": workload.unit, "better": workload.better, "least": least, "kernel_offloads": offloads,
           "profile": profile or "default", "floor": floor_of(workload, floor)}
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
    net = Net()
    floor = measure_floor(options, net)
    results, errors, skipped = [], [], []
    for row in chosen(options):
        missing = row[0].missing()
        if missing:
            skipped.append({"workload": row[0].name, "why": f"not installed: {' '.join(missing)}"})
            continue
        results.append(result_of(row, rounds_of(options, net, row, directory_of, errors), floor))
    net.holder.kill()
    return results, errors, skipped, floor
