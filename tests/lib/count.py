#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Counts individual tests in the log of `ctest -V`: count.py LOG STEP prints "PASSED FAILED SKIPPED" and, on stderr, the
names and output of tests that failed. With a third argument, one line per failed test is added to that file: step,
executable, test.

A test's output may hold cmocka's lines or lines "ok NAME", "not ok NAME", "skip NAME"; then those are counted. A test of
cmocka's counts once, however often it is named: processes forked by a test may say the same again. Else the executable
itself is one test. An executable that fails without saying which test did counts as one failure more; it is named by
the test that it had begun last, if any.
"""
import re
import sys

RESULT = re.compile(r"^\s*\d+/\d+ Test\s+#(\d+): (\S+) \.+\s*(\S.*?)\s+[0-9.]+ sec")
PASSING = re.compile(r"^\[( RUN |       OK ) *\]|^ok\b")
OUTPUT = re.compile(r"^(\d+): ?(.*)")


def tally(status, lines):
    """(passed, failed, skipped) of one executable."""
    text = "\n".join(lines)
    good, bad, left_out = (
        set(re.findall(r"^\[ *" + word + r" *\] (\w+)$", text, re.M)) for word in ("OK", "FAILED", "SKIPPED")
    )
    passed = len(good - bad) + len(re.findall(r"^ok\b", text, re.M))
    failed = len(bad) + len(re.findall(r"^not ok\b", text, re.M))
    skipped = len(left_out - bad) + len(re.findall(r"^skip\b", text, re.M))
    if status == "Passed":
        return (passed or (0 if skipped else 1), failed, skipped)
    if "Skipped" in status:
        return (passed, failed, skipped or 1)
    return (passed, failed or 1, skipped)


def culprits(status, lines):
    """The names of the tests that failed in an executable; how it ended, where it did not say."""
    text = "\n".join(lines)
    named = re.findall(r"^\[ *FAILED *\] (\w+)$", text, re.M) + re.findall(r"^not ok *(.*)", text, re.M)
    begun = re.findall(r"^\[ *RUN *\] (\w+)$", text, re.M)
    if named:
        return list(dict.fromkeys(named))
    return [status.strip("* ") + (f" in or after {begun[-1]}" if begun else "")]


def main():
    outputs, results = {}, []
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        for line in log:
            line = line.rstrip("\n")
            result, output = RESULT.match(line), OUTPUT.match(line)
            if result:
                results.append(result.groups())
            elif output:
                outputs.setdefault(output.group(1), []).append(output.group(2))
    total, failures = [0, 0, 0], []
    for number, name, status in results:
        lines = outputs.get(number, [])
        counts = tally(status, lines)
        total = [a + b for a, b in zip(total, counts)]
        if counts[1]:
            failures += [f"{sys.argv[2]}: {name}: {culprit}" for culprit in culprits(status, lines)]
            told = [line for line in lines if not PASSING.match(line)]
            print(f"--- {name}: {status.strip('*')}", *told[-60:], sep="\n", file=sys.stderr)
        for line in lines:
            if line.startswith("skip"):
                print(f"    {name}: {line}", file=sys.stderr)
    if len(sys.argv) > 3:
        with open(sys.argv[3], "a", encoding="utf-8") as listed:
            listed.writelines(line + "\n" for line in failures)
    print(*total)


if __name__ == "__main__":
    main()
