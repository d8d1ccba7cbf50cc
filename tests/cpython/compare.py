#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""compare.py MODULE [PART...]: a module of CPython's own suite, or those parts of it, on the kernel and under `viaduct run`, at the same time, each in a
network namespace of its own. Each test must end under Viaduct as it does on the kernel.

Many of these tests have time limits of their own, and two suites share the cores here: what ended otherwise runs
again alone, on both; what differs then fails. Prints "ok NAME" and "not ok NAME" for tests/lib/count.py. A run in which
the kernel sent as much as without Viaduct counts for nothing: it fails.
"""
import collections
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

import harness

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_S = 800
# The modules whose traffic is accelerated TCP. The others make few connections, or to plain programs.
CARRIED = ("test_socketserver", "test_asyncore", "test_asynchat", "test_ssl", "test_httplib", "test_ftplib",
           "test_smtplib", "test_xmlrpc", "test_asyncio")
INSIDE = """
ip link set lo up
ip address add 198.18.0.1/32 dev lo
"$@" 3>&- >"$OUT.log" 2>&1
awk '/^Tcp:/ { row = $12 } END { print row }' /proc/net/snmp >"$OUT.segments"
"""


def start(stack, names, directory):
    """A process; its results are in files of the directory named after the stack."""
    out = os.path.join(directory, stack)
    command = [sys.executable, "-B", os.path.join(HERE, "outcomes.py"), out] + names
    if stack == "viaduct":
        command = [harness.VIADUCT, "run", "--"] + command
    home = os.path.join(directory, stack + ".home")
    os.mkdir(home)
    return subprocess.Popen(["timeout", "-k", "5", str(LIMIT_S), "unshare", "--net", "sh", "-c", INSIDE, "sh"] + command,
                            cwd=home, stdin=subprocess.DEVNULL,
                            env=os.environ | {"OUT": out, "HOME": home, "PYTHONPATH": ""})


def outcomes(stack, directory):
    """{test: (outcome, why)}; a test that fails in one of its parts has failed."""
    found = collections.OrderedDict()
    try:
        with open(os.path.join(directory, stack), encoding="utf-8") as lines:
            for line in lines:
                name, outcome, why = json.loads(line)
                if found.get(name, ("",))[0] != "failed":
                    found[name] = (outcome, why)
    except OSError:
        pass
    return found


def run(names):
    """(kernel's outcomes, Viaduct's, segments that the kernel sent in each run)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        running = {stack: start(stack, names, directory) for stack in ("kernel", "viaduct")}
        segments = {}
        for stack, process in running.items():
            process.wait()
            try:
                with open(os.path.join(directory, stack + ".segments"), encoding="ascii") as text:
                    segments[stack] = int(text.read())
            except (OSError, ValueError):
                segments[stack] = None
                with open(os.path.join(directory, stack + ".log"), encoding="utf-8", errors="replace") as log:
                    print(f"{stack} did not come to its end:", log.read()[-2000:], sep="\n")
        return outcomes("kernel", directory), outcomes("viaduct", directory), segments


def differ(kernel, viaduct):
    return [name for name in kernel if kernel[name][0] != viaduct.get(name, ("missing",))[0]]


def main():
    module = sys.argv[1]
    if importlib.util.find_spec("test." + module) is None:
        print(f"skip {module}: libpython3.11-testsuite is not installed")
        return 77
    kernel, viaduct, segments = run([".".join(["test", module] + part) for part in [[p] for p in sys.argv[2:]] or [[]]])
    bad = differ(kernel, viaduct)
    for name in bad[:20]:
        again = run([name])
        if name in again[0] and not differ(again[0], again[1]):
            print(f"{name} differed beside the other suite, and is the same alone")
            bad.remove(name)
    for name, (outcome, _) in kernel.items():
        if name in bad:
            print(f"not ok {name}: {outcome} on the kernel, under Viaduct", *viaduct.get(name, ("missing",)), sep="\n")
        else:
            print("ok", name)
    ended = bool(kernel) and None not in segments.values()
    if not ended:
        print("not ok", module, "came to its end")
    print("segments sent by the kernel:", segments)
    carried = ended and (module not in CARRIED or segments["viaduct"] * 4 < segments["kernel"])
    print("ok" if carried else "not ok", module, "was carried by Viaduct")
    return 1 if bad or not carried or not ended else 0


if __name__ == "__main__":
    sys.exit(main())
