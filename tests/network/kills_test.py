# SPDX-License-Identifier: BSD-2-Clause
"""kill -9 of clients, servers and viaductds at random moments, some hundreds of times: the other ends see what the kernel
would show them, and of the dead nothing remains.

One link serves many rounds; each has servers and clients with a few connections each (mortal.c), whose plans, victims and
times follow from a seed. What a surviving end must see when the other was killed, as tcp_close and the receiver of a RST
in Linux do it:

  the end of the stream   only after all that the dead one's send had taken
  a reset                 only if the dead one had not read all that was sent to it, or SO_LINGER said so; and then it must
  nothing else            neither silence nor wrong bytes; and where nobody was killed, all of it and the end

A stack that dies while no viaductd is there to take it over is answered by the kernel: a reset, if anything is sent.
A round that fails prints its name; TEST_ROUND=NAME plays that one alone, again and again for TEST_TIMES times.
"""
import collections
import contextlib
import ctypes
import mmap
import os
import random
import select
import signal
import struct
import subprocess
import time

import harness
from harness import case, check
from link import finishers, linked, status

MORTAL = os.path.join(harness.BUILD, "tests", "network", "mortal")
SEED = os.environ.get("TEST_SEED", "1")
ROUNDS = int(os.environ.get("TEST_ROUNDS", "24"))
PAIRS, CONNECTIONS = 8, 3
PIECE = 60000  # the most that one send or recv of mortal's moves
KNOBS = ("TIME_WAIT_MS=200",)
PATIENCE = 20
FORSAKEN = 3
BACK = 1.5

SENDS, READS, SHUTS, LINGERS, ABORTS, SLOW = 1, 2, 4, 8, 16, 32
NOT_YET, OPEN = 0, 1
ENDED, RESET = 1, 2
# (the client's plan, how much it sends), (the server's)
PLANS = [
    ((SENDS, 0), (READS, 0)),
    ((READS, 0), (SENDS, 0)),
    ((SENDS | READS, 0), (SENDS | READS, 0)),
    ((SENDS, 0), (READS | SLOW, 0)),
    ((READS | SLOW, 0), (SENDS, 0)),
    ((SENDS | READS, 20000), (0, 0)),
    ((0, 0), (SENDS | READS, 20000)),
    ((SENDS | READS | SHUTS, 30000), (SENDS | READS, 0)),
    ((SENDS | READS, 0), (SENDS | READS | SHUTS, 30000)),
    ((READS, 0), (READS, 0)),
    ((SENDS | READS, 200), (SENDS | READS, 200)),
    ((SENDS | LINGERS, 0), (READS, 0)),
    ((READS, 0), (SENDS | LINGERS, 100000)),
    ((SENDS | READS | ABORTS, 5000), (READS, 0)),
    ((READS, 0), (SENDS | READS | ABORTS, 5000)),
]


class Ledger:
    """What the ends of connections have done, in a file that mortal maps as well: see there."""

    HEAD = struct.Struct("<II")
    END = struct.Struct("<IIQQQIIIIII")
    End = collections.namedtuple("End", "plan quota sent read acked state how err wrong shut pid")

    def __init__(self, path, plans):
        self.path, self.count = path, len(plans)
        with open(path, "wb") as file:
            file.write(bytes(self.HEAD.size + 2 * self.count * self.END.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        for number, plan in enumerate(plans):
            for side in (0, 1):
                struct.pack_into("<II", self.memory, self.place(number, side), *plan[side])

    def place(self, number, side):
        return self.HEAD.size + (2 * number + side) * self.END.size

    def end(self, number, side):
        return self.End(*self.END.unpack_from(self.memory, self.place(number, side)))

    def all(self):
        return [(self.end(number, 0), self.end(number, 1)) for number in range(self.count)]

    def over(self, stage):
        struct.pack_into("<I", self.memory, 0, stage)

    def close(self):
        self.memory.close()
        os.unlink(self.path)


# --- what may be seen ---

def seen_by(alive, dead, before, excused):
    """What is wrong with what `alive` has seen of `dead`, which was killed; `before`: what `alive` knew before. Or None."""
    first = 4 if not dead.plan & READS and dead.state != NOT_YET else 0  # the connection's name, which all read
    certainly_unread = not dead.plan & READS and before.acked > max(first, dead.read) and not dead.shut
    if alive.how == ENDED:
        if not dead.sent <= alive.read <= dead.sent + PIECE:
            return f"the end after {alive.read} bytes, but send had taken {dead.sent}"
        if certainly_unread and not excused and dead.state != NOT_YET:
            return f"no reset, although {before.acked - dead.read} bytes were not read"
        if dead.plan & ABORTS and not dead.shut and dead.state == OPEN:
            return "no reset, although the dead one did not linger"
    elif alive.how == RESET:
        if not (alive.sent > dead.read or dead.plan & ABORTS or dead.state == NOT_YET or excused):
            return f"a reset, although the dead one had read all; {alive.read} of {dead.sent} bytes had come"
    else:
        return f"neither an end nor a reset, error {alive.err}"
    return None


def both_live(one, other):
    if one.how != ENDED:
        return f"not the end, but {one.how}, error {one.err}, after {one.read} of {other.sent} bytes"
    if one.read != other.sent:
        return f"{one.read} of {other.sent} bytes"
    return None


def judge(number, ends, before, killed, excused):
    """Sentences of what is wrong with the connection."""
    dead = [end.pid in killed for end in ends]
    wrong = []
    for side, name in enumerate(("client", "server")):
        end, other = ends[side], ends[1 - side]
        if end.wrong:
            wrong.append(f"the {name} has read {end.wrong} wrong bytes")
        if dead[side] or end.state == NOT_YET:
            continue
        if dead[1 - side]:
            fault = seen_by(end, other, before[side], excused[1 - side])
        elif other.pid and other.state != NOT_YET:
            fault = both_live(end, other)
        else:
            fault = None
        if fault:
            wrong.append(f"the {name} has seen {fault}")
    return [f"connection {number}: {text}\n    client {ends[0]}\n    server {ends[1]}\n    before {before}"
            for text in wrong]


# --- viaductd and what it holds ---

LIBC = ctypes.CDLL(None, use_errno=True)
BPF_GET = {"prog_id": 13, "map_id": 14, "link_id": 30}


def bpf_of(pid):
    """Programs, maps and links that the process holds."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/fdinfo/{entry}", encoding="ascii") as info:
                    found |= {tuple(line.split()) for line in info if line.split(":")[0] in BPF_GET}
    return found


def bpf_exists(kind, number):
    attributes = ctypes.create_string_buffer(struct.pack("<I", int(number)) + bytes(60), 64)
    fd = LIBC.syscall(321, BPF_GET[kind.rstrip(":")], attributes, 64)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def memory_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as text:
        return next(int(line.split()[1]) for line in text if line.startswith("RssAnon"))


def fds_of(pid):
    """What it has open, sockets with what /proc/net says of them."""
    about = {}
    for table in ("tcp", "tcp6", "udp", "udp6", "unix", "netlink", "raw"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{table}", encoding="utf-8") as lines:
            for line in lines:
                about.update({f"socket:[{word}]": f"{table} {line.strip()}" for word in line.split()[6:] if word.isdigit()})
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return collections.Counter(about.get(name, name).split(" ")[0].rstrip("0123456789]") for name in names)


def memfds():
    """Stacks' and umems' memory that any process has open or mapped."""
    found = collections.Counter()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    name = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if "memfd:viaduct" in name and "netview" not in name:
                        found[f"{pid} {name}"] += 1
    return found


class Daemons:
    """The viaductds of a link, killed and started again."""

    def __init__(self, link):
        self.sides = [side for side in link.sides.values() if side.accelerated]
        self.kills, self.bpf = 0, set()
        self.note()

    def note(self):
        for side in self.sides:
            self.bpf |= bpf_of(side.daemon.pid)

    def kill(self, side):
        self.note()
        side.daemon.kill()
        side.daemon.wait()
        self.kills += 1

    def start(self, side):
        if side.daemon.poll() is not None:
            side.start_daemon()
        self.note()


# --- a round ---

class Program:
    """A client or a server, and the processes it consists of."""

    def __init__(self, started, kind, side, first):
        self.started, self.kind, self.side, self.first = started, kind, side, first
        self.pids = [started.process.pid]

    def find_workers(self):
        if self.kind == "workers" and len(self.pids) == 1:
            self.pids += harness.children_of(self.pids[0])

    def alive(self):
        self.started.process.poll()
        return [pid for pid in self.pids if os.path.exists(f"/proc/{pid}") and not zombie(pid)]


def zombie(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as text:
            return text.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


class Drawn:
    """What a round's name decides before it is played."""

    def __init__(self, name):
        self.dice = random.Random(f"{SEED} {name}")
        self.plans = [self.dice.choice(PLANS) for _ in range(PAIRS * CONNECTIONS)]
        self.kind = self.dice.choice(Round.KINDS)


class Round:
    def __init__(self, test, link, daemons, name):
        self.test, self.link, self.daemons, self.name = test, link, daemons, name
        drawn = Drawn(name)
        self.dice, self.kind, plans = drawn.dice, drawn.kind, drawn.plans
        self.ledger = Ledger(test.path("ledger"), plans)
        self.before = None
        self.killed, self.excused = set(), set()  # pids; sides
        self.victims = []  # their pidfds
        self.programs = []
        self.stacks = {}  # by side: how many viaductd had before it was killed

    def start(self, side, kind, port, first):
        command = self.link.command(side, [MORTAL, self.ledger.path, kind, self.link.address("far"), port, first,
                                           CONNECTIONS], KNOBS)
        log = self.test.path(f"{kind}-{first}.log")
        program = Program(harness.machine.Program([str(word) for word in command], log), kind, side, first)
        self.programs.append(program)
        self.test.programs.append(program.started)
        return program

    def pause(self, most):
        time.sleep(self.dice.random() * most)

    def begin(self):
        ports = [self.link.port() for _ in range(PAIRS)]
        # workers that die leave stacks to those that live: then it can't be told what viaductd has heard of
        kinds = ["server"] * 3 + ["workers"] * (self.kind is not Round.programs_die_then_viaductd)
        servers = [self.start("far", self.dice.choice(kinds), port, i * CONNECTIONS) for i, port in enumerate(ports)]
        end = time.monotonic() + 10
        for server, port in zip(servers, ports):
            while not self.link.sides["far"].listening(port):
                check(time.monotonic() < end and server.alive(), f"no server: {server.started.output()}")
                time.sleep(0.01)
        for i, port in enumerate(ports):
            self.start("near", "client", port, i * CONNECTIONS)
        for server in servers:
            server.find_workers()

    # what is killed

    def kill(self, pid):
        self.before = self.before or {}
        for number, ends in enumerate(self.ledger.all()):
            for side in (0, 1):
                if ends[side].pid == pid:
                    self.before[number] = ends
        self.killed.add(pid)
        with contextlib.suppress(ProcessLookupError):
            self.victims.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(self.victims[-1], signal.SIGKILL)

    def kill_programs(self, spread):
        victims = []
        for client, server in zip(self.programs[PAIRS:], self.programs[:PAIRS]):
            draw = self.dice.random()
            if draw < 0.55:
                victims.append(client.pids[0])
            if draw > 0.45:
                victims += self.dice.sample(server.pids, self.dice.randint(1, len(server.pids)))
        self.dice.shuffle(victims)
        for pid in victims:
            self.pause(spread)
            self.kill(pid)

    def accelerated(self):
        return [self.link.sides[name] for name in ("near", "far") if self.link.sides[name].accelerated]

    def settled(self, side):
        """The victims are dead with all their threads, which takes a while after the kill, and viaductd has heard of it:
        it learns of a process's end before it answers a question that is asked later."""
        end = time.monotonic() + 10
        for victim in self.victims:
            check(select.select([victim], [], [], max(end - time.monotonic(), 0))[0], f"of {self.killed} some live")
        living = sum(len(p.alive()) for p in self.programs if p.side == side.name)
        while status(side)[0] > living:
            check(time.monotonic() < end, f"viaductd of the {side.name} side has {status(side)}, and {living} live")
            time.sleep(0.01)

    def note_stacks(self, side):
        """A while before viaductd is killed: an answer to be given is an orderly moment."""
        self.stacks[side] = max(status(side)[0], self.stacks.get(side, 0))

    def programs_die(self):
        self.pause(0.15)
        self.kill_programs(0.03)

    def programs_die_then_viaductd(self):
        """What it had taken over goes on."""
        self.programs_die()
        side = self.dice.choice(self.accelerated())
        self.settled(side)
        self.note_stacks(side)
        self.pause(0.05)
        self.daemons.kill(side)
        self.pause(self.dice.choice((0.1, 1)))
        self.daemons.start(side)

    def viaductd_dies(self):
        """Nobody notices."""
        for _ in range(2):
            side = self.dice.choice(self.accelerated())
            self.note_stacks(side)
            self.pause(0.2)
            self.daemons.kill(side)
            self.pause(0.3)
            self.daemons.start(side)

    def all_die(self):
        """In any order: what dies while no viaductd is there may be reset."""
        self.excused = {side.name for side in self.accelerated()}
        self.pause(0.1)
        side = self.dice.choice(self.accelerated())
        self.note_stacks(side)
        self.kill_programs(0.01)
        self.daemons.kill(side)
        self.pause(0.1)
        self.daemons.start(side)

    KINDS = [programs_die, programs_die, programs_die, programs_die_then_viaductd, viaductd_dies, all_die]

    # how it ends

    def forsaken(self, program):
        """All that it waits for is of dead ones that nobody has taken over: nothing tells who only waits."""
        mine = 0 if program.kind == "client" else 1
        if ("far", "near")[mine] not in self.excused:
            return False
        return all(ends[mine].how or ends[1 - mine].pid in self.killed or not ends[1 - mine].pid
                   for ends in self.ledger.all()[program.first:program.first + CONNECTIONS])

    def await_end(self, programs):
        begun = time.monotonic()
        for program in programs:
            while program.alive():
                if time.monotonic() > begun + FORSAKEN and self.forsaken(program):
                    for pid in program.alive():
                        self.kill(pid)
                if time.monotonic() > begun + PATIENCE:
                    raise AssertionError(f"{program.kind} {program.first} does not end: {self.hanging(program)}")
                time.sleep(0.01)

    def hanging(self, program):
        side = 0 if program.kind == "client" else 1
        return "\n".join(f"connection {number}: {ends}" for number, ends in enumerate(self.ledger.all())
                         if program.first <= number < program.first + CONNECTIONS and ends[side].how == 0)

    def come_back(self):
        """Those who live have come to the next viaductd, and may end."""
        end = time.monotonic() + BACK
        for side, stacks in self.stacks.items():
            living = sum(len(p.alive()) for p in self.programs if p.side == side.name)
            while status(side)[0] < min(stacks, living) and time.monotonic() < end:
                time.sleep(0.05)

    def end(self):
        self.pause(0.2)
        self.come_back()
        self.ledger.over(1)
        self.await_end(self.programs[PAIRS:])
        self.ledger.over(2)
        self.await_end(self.programs[:PAIRS])

    def verdict(self):
        faults, ends = [], self.ledger.all()
        for number, pair in enumerate(ends):
            before = (self.before or {}).get(number, pair)
            server = self.programs[number // CONNECTIONS]
            if not pair[1].pid and self.killed & set(server.pids):
                continue  # nobody accepted it, or knew its name
            faults += judge(number, pair, before, self.killed, [name in self.excused for name in ("near", "far")])
            named = pair[0].sent >= 4  # else the server does not know which connection it has
            if not self.killed and (pair[0].how != ENDED or (named and pair[1].how != ENDED)):
                faults.append(f"connection {number}: {pair}")
        for program in self.programs:
            code = program.started.process.poll()
            if code not in (0, None, -signal.SIGKILL):
                faults.append(f"{program.kind} {program.first} ended with {code}: {program.started.output()}")
        return faults

    def play(self):
        try:
            self.begin()
            self.kind(self)
            self.end()
            for side in self.accelerated():
                self.daemons.start(side)
            faults = self.verdict()
        except AssertionError as error:
            faults = [str(error)]
        finally:
            self.clean()
        check(not faults, f"round {self.name} ({self.kind.__name__}, seed {SEED}): " + "\n  ".join(faults))
        return len(self.killed)

    def clean(self):
        for program in self.programs:
            for pid in program.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            program.started.process.wait()
        for victim in self.victims:
            os.close(victim)
        self.test.programs.clear()
        self.ledger.close()


# --- what remains ---

def until(condition, seconds, text):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, text() if callable(text) else text)
        time.sleep(0.05)


def links(side):
    out = subprocess.run(side.inside(["ip", "-o", "-d", "link", "show"]), capture_output=True, check=True).stdout.decode()
    return sorted(line.split(": ")[1].split("@")[0] for line in out.splitlines()), "prog/xdp" in out or "xdp id" in out


def nothing_remains(link, daemons, fresh):
    for side in daemons.sides:
        # whose peer has died with no viaductd there is told by the kernel when that peer's filter has gone, after 20 s: at
        # the next retransmission, which may be as far away again
        until(lambda side=side: not finishers(side), 50, lambda side=side: f"still there: {finishers(side)}")
        # what an earlier viaductd had, and nobody has come for, is kept for 20 s
        until(lambda side=side: status(side) == (0, 0, 0), 25, lambda side=side: f"viaductd has {status(side)}")
        until(lambda side=side: links(side) == (["lo", "wire0"], False), 25, lambda side=side: f"there is {links(side)}")
        pid = side.daemon.pid
        more = fds_of(pid) - fresh[0] - collections.Counter({f"/mnt/viaductd-{side.name}": 2})
        check(sum(more.values()) <= 2, f"viaductd has open, besides what a fresh one has: {more}")
        check(memory_of(pid) <= fresh[1] + 8192, f"viaductd has {memory_of(pid)} KiB, a fresh one {fresh[1]}")
    check(not memfds(), f"memory remains: {memfds()}")
    for side in link.sides.values():
        if side.accelerated:
            side.daemon.terminate()
            side.daemon.wait()
    until(lambda: not [thing for thing in daemons.bpf if bpf_exists(*thing)], 10,
          lambda: f"of BPF there remains {[thing for thing in daemons.bpf if bpf_exists(*thing)]}")


def rounds(accelerated):
    """Names of the rounds to be played: first those in which viaductds die, so that what they leave, which the next one
    keeps for 20 s, is gone when the others are over."""
    chosen = os.environ.get("TEST_ROUND")
    if not chosen:
        names = [f"{accelerated}-{number}" for number in range(ROUNDS)]
        return sorted(names, key=lambda name: Drawn(name).kind is Round.programs_die)
    return [chosen] * int(os.environ.get("TEST_TIMES", "1")) if chosen.startswith(accelerated + "-") else []


def many_die(test, accelerated):
    if not rounds(accelerated):
        return
    known, killed = set(os.listdir("/mnt")) | set(os.listdir("/dev/shm")), 0
    with linked(test, accelerated) as link:
        daemons = Daemons(link)
        status(daemons.sides[0])  # answered when it has started
        fresh = (fds_of(daemons.sides[0].daemon.pid), memory_of(daemons.sides[0].daemon.pid))
        for name in rounds(accelerated):
            killed += Round(test, link, daemons, name).play()
        nothing_remains(link, daemons, fresh)
    left = (set(os.listdir("/mnt")) | set(os.listdir("/dev/shm"))) - known - {"viaductd-near", "viaductd-far"}
    check(not left, f"files remain: {left}")
    print(f"   {killed} programs and {daemons.kills} viaductds were killed", flush=True)


@case
def clients_on_viaduct(test):
    many_die(test, "near")


@case
def servers_on_viaduct(test):
    many_die(test, "far")


@case
def both_on_viaduct(test):
    many_die(test, "both")


harness.main()
