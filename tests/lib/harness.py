# SPDX-License-Identifier: BSD-2-Clause
"""Test cases with real programs. A file of cases ends in harness.main(); each case is a function that takes a Test.

Most cases run the same steps once on the kernel and once on Viaduct and compare what came out. Each Viaduct run must
really have been carried by Viaduct, and afterwards nothing may be left: no process, no abstract socket.
Prints "ok NAME", "not ok NAME" or "skip NAME: why" per case, which tests/lib/count.py counts.
"""
import contextlib
import difflib
import inspect
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import machine

BUILD = os.environ.get("TEST_BUILD", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build"))
VIADUCT = os.path.join(BUILD, "viaduct")
HOST = "127.0.0.1"
STRAY_SEGMENTS = 50  # the kernel's, in a run that Viaduct carried: none but a few connection attempts

CASES = []


class Skip(Exception):
    """The case can't run here, with the reason."""


def case(function):
    """Marks a test case."""
    CASES.append(function)
    return function


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")


def difference(kernel, viaduct):
    """Of two long texts only the lines about the first places where they differ."""
    one, other = str(kernel), str(viaduct)
    if len(one) + len(other) < 2000:
        return f"  kernel:  {one}\n  viaduct: {other}"
    lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "kernel", "viaduct", "", "", 2, "")
    return "\n".join(line[:500] for line in list(lines)[:40])


def same(kernel, viaduct, what="outcome"):
    if kernel != viaduct:
        raise AssertionError(f"{what} differs\n{difference(kernel, viaduct)}")


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def wait_until(true, seconds, what):
    """what: text for the message, or what makes it."""
    end = time.monotonic() + seconds
    while not true():
        check(time.monotonic() < end, what() if callable(what) else what)
        time.sleep(0.01)


def bindable(port):
    """False where another test file's connections are still in TIME-WAIT: not every server sets SO_REUSEADDR."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


class Test:
    """What a case works with. `stack` is "kernel" or "viaduct": where its programs' sockets go."""

    last_port = 30000

    def __init__(self, stack="viaduct"):
        self.stack, self.viaduct = stack, VIADUCT
        self.directory = tempfile.mkdtemp()
        os.chmod(self.directory, 0o755)
        self.programs = []

    def port(self):
        Test.last_port += 1
        while not bindable(Test.last_port):
            Test.last_port += 1
        return Test.last_port

    def path(self, name):
        return os.path.join(self.directory, name)

    def wrapped(self, command, plain=False, knobs=()):
        command = [str(part) for part in command]
        if self.stack == "kernel" or plain:
            return command
        settings = [part for knob in knobs for part in ("--set", knob)]
        return [self.viaduct, "run"] + settings + ["--"] + command

    def start(self, command, port=None, udp=False, plain=False, knobs=()):
        """A program in the background; with port: until it listens there."""
        log = self.path(f"program-{len(self.programs)}.log")
        program = machine.Program(self.wrapped(command, plain, knobs), log)
        self.programs.append(program)
        if port:
            program.wait_for(port, udp)
        return program

    def run(self, command, seconds=60, plain=False, knobs=()):
        """A program to its successful end; its output."""
        return machine.run(self.wrapped(command, plain, knobs), seconds)

    def finish(self, program, seconds=30):
        """Wait for a background program's successful end; its output."""
        try:
            code = program.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {seconds} s: {program.output()}") from None
        check(code == 0, f"ended with {code}: {program.output()}")
        return program.output()

    def end(self):
        for program in self.programs:
            program.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def carried(self):
        """What happens inside is carried by the stack under test, and by it alone. Servers live on around it."""
        before = machine.kernel_segments() - machine.kernel_refusals()
        with Watch(self.stack == "viaduct") as watch:
            yield
        sent = machine.kernel_segments() - machine.kernel_refusals() - before
        if self.stack == "kernel":
            check(sent > 0, "the kernel sent nothing in its own run")
            return
        check(sent <= STRAY_SEGMENTS, f"not accelerated: the kernel sent {sent} segments")
        check(watch.grown > 0, f"Viaduct's counters did not grow {watch.trouble}")


class Watch:
    """How much Viaduct's counters grew from look to look. Those of processes and wires that ended in between are lost."""

    def __init__(self, on):
        self.last, self.grown, self.trouble, self.ended = {}, 0, "", threading.Event()
        self.thread = threading.Thread(target=self.watch) if on else None

    def look(self):
        try:
            now = machine.viaduct_frames(VIADUCT)
            self.grown += sum(max(0, frames - self.last.get(vnic, 0)) for vnic, frames in now.items())
            self.last = now
        except machine.Failed as failure:
            self.trouble = str(failure)

    def watch(self):
        while not self.ended.wait(0.2):
            self.look()

    def __enter__(self):
        if self.thread:
            self.look()
            self.grown = 0
            self.thread.start()
        return self

    def __exit__(self, *_):
        if self.thread:
            self.ended.set()
            self.thread.join()
            self.look()


def both(steps):
    """steps(test) on the kernel, then on Viaduct; what they return must be the same. Returns it."""
    results = []
    for stack in ("kernel", "viaduct"):
        test = Test(stack)
        try:
            results.append(steps(test))
        except Skip:
            raise
        except Exception as error:
            logs = "\n".join(f"  [{i}] {program.output()}" for i, program in enumerate(test.programs))
            raise AssertionError(f"on {stack}: {error}\nprograms' output:\n{logs}") from error
        finally:
            test.end()
    same(*results)
    return results[1]


def cpu_seconds(pid):
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    if int(stat.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
    return found


def ancestors():
    pid, found = os.getpid(), set()
    while pid:
        found.add(pid)
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            pid = int(stat.read().rsplit(")", 1)[1].split()[1])
    return found


def remains(known):
    """What a case left behind: processes (zombies not counted: they wait for their parent), sockets."""
    left = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in known:
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    continue
            with open(f"/proc/{entry}/cmdline", "rb") as line:
                left.append(f"process {entry} {line.read().replace(bytes(1), b' ').decode(errors='replace')}")
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        left += ["socket " + line.split()[-1] for line in table if "@viaduct" in line]
    return left


def processes():
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}


def run_case(function):
    """A message if it failed."""
    known = processes()
    test = None
    try:
        if inspect.signature(function).parameters:
            test = Test()
            function(test)
        else:
            function()
    except (AssertionError, machine.Failed) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        logs = "".join(f"\n  [{i}] {program.output()}" for i, program in enumerate(test.programs)) if test else ""
        return f"{error} ({os.path.basename(where.filename)}:{where.lineno}){logs}"
    except (OSError, ValueError, KeyError, IndexError):
        return traceback.format_exc()
    finally:
        if test:
            test.end()
    end = time.monotonic() + 3
    while remains(known) and time.monotonic() < end:
        time.sleep(0.05)
    left = remains(known)
    for line in left:
        if line.startswith("process "):
            with contextlib.suppress(OSError):
                os.kill(int(line.split()[1]), signal.SIGKILL)
    return "left behind: " + "; ".join(left) if left else None


def main():
    machine.enter()
    if not os.path.exists(VIADUCT):
        sys.exit(f"no {VIADUCT}: set TEST_BUILD to the build directory")
    wanted = sys.argv[1:]
    failed = 0
    for function in CASES:
        name = function.__name__
        if wanted and name not in wanted:
            continue
        began = time.monotonic()
        try:
            error = run_case(function)
        except Skip as reason:
            print(f"skip {name}: {reason}", flush=True)
            continue
        seconds = f"({time.monotonic() - began:.1f} s)"
        if error:
            failed += 1
            print(f"not ok {name} {seconds}\n  " + error.replace("\n", "\n  "), flush=True)
        else:
            print(f"ok {name} {seconds}", flush=True)
    sys.exit(1 if failed else 0)
