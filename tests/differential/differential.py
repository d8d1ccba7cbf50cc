#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Random programs of socket calls on the kernel and under Viaduct, compared step by step (play.c).

  differential.py [--first SEED] [--count N]   plays those seeds, half on each core, and the written programs in kept/
  differential.py --replay SEED                one, with both transcripts
  differential.py --replay FILE                a written program, such as a shrunk one

A program that came out otherwise is played again alone: on the kernel, to see whether the kernel's own outcome varies
(then it proves nothing), and under Viaduct. What still differs is shrunk: steps are removed as long as the same call
differs. Prints "ok" and "not ok" for tests/lib/count.py.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import machine  # noqa: E402

PLAY = os.path.join(harness.BUILD, "tests", "differential", "play")
KEPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kept")
BATCH = 250
SHOWN = 8  # programs that are played again and shrunk; the others count as they came out
LIMIT_S = 120
INSIDE = """
ip link set lo up
# the kernel's delayed ACKs would make Nagle's algorithm take 40 ms
ip route replace table local local 127.0.0.0/8 dev lo src 127.0.0.1 quickack 1
ip -6 route replace table local local ::1 dev lo quickack 1
"$@" >"$OUT" 2>"$OUT.log"
status=$?
awk '/^Tcp: [0-9]/ { print $12 }' /proc/net/snmp >"$OUT.segments"
exit $status
"""


def play(out, arguments, core=0, expect=None, patience=1500):
    """Plays, in a network namespace of its own, and writes the transcript to out. True if play came to its end."""
    command = [PLAY, "--patience", str(patience)] + (["--expect", expect] if expect else []) + arguments
    if expect:
        command = [harness.VIADUCT, "run", "--"] + command
    return subprocess.run(["taskset", "-c", str(core), "timeout", "-k", "5", str(LIMIT_S), "unshare", "--net",
                           "sh", "-c", INSIDE, "sh"] + command, check=False, stdin=subprocess.DEVNULL,
                          env=os.environ | {"OUT": out}).returncode in (0, 1)


def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as text:
        return text.read()


def segments(out):
    return int(text_of(out + ".segments"))


class Difference:
    """The first step that came out otherwise, or what else went wrong, in one program's transcript."""

    def __init__(self, transcript):
        lines = transcript.splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith("differs")), None)
        self.text, self.kind = "", None
        if at is None and not (lines and lines[-1].startswith("end")):
            self.kind, self.text = "no end", "\n".join(lines[-2:])
        elif at is not None:
            mine, kernel = lines[at - 1], lines[at].removeprefix("differs: ")
            outcome = mine.split(" |")[0] == kernel.split(" |")[0]
            self.kind = (mine.split(" ")[1], outcome)
            self.text = f"  kernel   {kernel}\n  viaduct  {mine}"

    def __bool__(self):
        return self.kind is not None


def programs_of(transcript):
    """{name: its part of the transcript}"""
    parts = re.split(r"(?m)^program (\w+)\n", transcript)
    return dict(zip(parts[1::2], parts[2::2]))


class Alone:
    """One program, played in namespaces of its own."""

    def __init__(self, directory, steps, patience=1500):
        self.steps = steps
        path = os.path.join(directory, "program")
        with open(path, "w", encoding="ascii") as file:
            file.write("\n".join(steps) + "\n")
        out = [os.path.join(directory, name) for name in ("kernel", "again", "viaduct")]
        play(out[0], ["-f", path])
        play(out[1], ["-f", path], core=1)
        self.kernel = text_of(out[0])
        self.varies = self.kernel != text_of(out[1])
        play(out[2], ["-f", path], expect=out[0], patience=patience)
        self.difference = Difference(text_of(out[2]))


def shrink(directory, steps, kind):
    """The steps without those that the difference does not need."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size:]
            shorter = Alone(directory, fewer, 400) if fewer else None
            if shorter and not shorter.varies and shorter.difference.kind == kind:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def steps_of(program):
    """A seed's or a file's."""
    if os.path.exists(program):
        return [line for line in text_of(program).splitlines() if line and not line.startswith("#")]
    return subprocess.run([PLAY, "--show", program], check=True, capture_output=True, text=True).stdout.splitlines()


def examine(directory, seed, difference):
    """Is it so again, alone? Shows it shrunk. True if Viaduct is to blame."""
    steps = steps_of(seed)
    for _ in range(3):
        again = Alone(directory, steps)
        if again.varies:
            print(f"seed {seed}: the kernel's own outcome varies")
            return False
        if again.difference:
            steps = shrink(directory, steps, again.difference.kind)
            shown = Alone(directory, steps)
            print(f"seed {seed}, shrunk; again with {sys.argv[0]} --replay {seed}, or a file with the lines up to ':'")
            print("\n".join("    " + line for line in shown.kernel.splitlines()[1:-1]))
            print(shown.difference.text, flush=True)
            return True
    print(f"seed {seed}: differed among others, not alone\n{difference.text}")
    return False


def kept(directory):
    """Programs that came out otherwise once, each named after what it protects. The number that do again."""
    bad = 0
    for name in sorted(os.listdir(KEPT)):
        played = Alone(directory, steps_of(os.path.join(KEPT, name)))
        print("not ok" if played.difference else "ok", name.removesuffix(".txt"))
        if played.difference:
            print(played.difference.text)
            bad += 1
    return bad


def batch(directory, core, first, count):
    """(those that differ and how, segments that the kernel sent on its own run, and under Viaduct)"""
    kernel, viaduct = (os.path.join(directory, f"{name}.{first}") for name in ("kernel", "viaduct"))
    seeds = [str(first), str(count)]
    if not play(kernel, seeds, core):
        raise machine.Failed("the kernel's run did not end: " + text_of(kernel)[-300:] + text_of(kernel + ".log"))
    ended = play(viaduct, seeds, core, expect=kernel)
    bad, played = {}, programs_of(text_of(viaduct))
    for seed, transcript in played.items():
        difference = Difference(transcript)
        if difference:
            bad[seed] = difference
    sent = segments(kernel), segments(viaduct)
    if not ended and played:
        rest = int(list(played)[-1]) + 1
        bad.setdefault(str(rest - 1), Difference(""))
        if rest < first + count:
            more, more_sent = batch(directory, core, rest, first + count - rest)
            bad.update(more)
            sent = tuple(a + b for a, b in zip(sent, more_sent))
    return bad, sent


def play_all(directory, first, count):
    """All seeds, those that differ, segments as in batch()."""
    bad, sent = {}, [0, 0]
    starts = range(first, first + count, BATCH)

    def one(core):
        return [batch(directory, core, start, min(BATCH, first + count - start)) for start in starts[core::2]]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for results in pool.map(one, (0, os.cpu_count() - 1)):
            for found, segments_sent in results:
                bad.update(found)
                sent = [a + b for a, b in zip(sent, segments_sent)]
    return bad, sent


def report(directory, first, count):
    bad, sent = play_all(directory, first, count)
    blamed = []
    for seed in sorted(bad, key=int):
        if len(blamed) < SHOWN:
            blamed += [seed] if examine(directory, seed, bad[seed]) else []
        else:
            blamed.append(seed)
            print(f"seed {seed}\n{bad[seed].text}")
    carried = sent[1] * 4 < sent[0]
    print(f"{count} programs from seed {first}: {len(bad)} came out otherwise; {len(blamed)} of them again",
          f"segments sent by the kernel: {sent[0]}, under Viaduct {sent[1]}", sep="\n")
    print("differ:", *blamed)
    print("ok" if not blamed else "not ok", "programs come out as on the kernel")
    print("ok" if carried else "not ok", "Viaduct carried them")
    return 1 if kept(directory) or blamed or not carried else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--replay")
    arguments = parser.parse_args()
    machine.enter()
    with tempfile.TemporaryDirectory() as directory:
        if arguments.replay:
            alone = Alone(directory, steps_of(arguments.replay))
            print(alone.kernel, alone.difference.text or "no difference", sep="")
            return 1 if alone.difference else 0
        return report(directory, arguments.first, arguments.count)


if __name__ == "__main__":
    sys.exit(main())
