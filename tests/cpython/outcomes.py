# SPDX-License-Identifier: BSD-2-Clause
"""Runs tests of CPython's own suite and says how each ended: outcomes.py OUT NAME..., a name as unittest takes it.

OUT gets one line of JSON per test: its name, and passed, failed, skipped or expected. Output of the tests themselves goes
to standard output and error. With the resource "network", as `python3 -m test -u network`, though no network is there.
"""
import json
import sys
import unittest
import warnings

from test import support

# Sockets of a virtual machine's host. Where the kernel knows of them and no host is there, connect() hangs.
LEFT_OUT = ("VSOCK",)


class Outcomes(unittest.TestResult):
    def __init__(self, out):
        super().__init__()
        self.out = out

    def tell(self, test, outcome, why=""):
        self.out.write(json.dumps([test.id(), outcome, why]) + "\n")
        self.out.flush()

    def addSuccess(self, test):
        self.tell(test, "passed")

    def addFailure(self, test, err):
        self.tell(test, "failed", self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.tell(test, "failed", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        self.tell(test, "skipped")

    def addExpectedFailure(self, test, err):
        self.tell(test, "expected")

    def addUnexpectedSuccess(self, test):
        self.tell(test, "failed", "passes, and should not")


def chosen(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test)
        elif not any(word in test.id() for word in LEFT_OUT):
            yield test


def main():
    support.use_resources = ["network"]
    support.verbose = False
    warnings.simplefilter("ignore")
    tests = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:])
    # in the order in which the suite runs them, so that set-ups of classes and modules are shared as ever
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        unittest.TestSuite(chosen(tests)).run(Outcomes(out))


if __name__ == "__main__":
    main()
