# SPDX-License-Identifier: BSD-2-Clause
"""The kernel module viaduct.ko: built for the virtual machine's kernel, without a warning, and tried there (inside.sh)."""
import os
import re
import shutil
import subprocess
import sys

import harness
import machine
from harness import case, check, need

HERE = os.path.dirname(os.path.realpath(__file__))
SOURCE = os.path.realpath(os.path.join(HERE, "..", "..", ".."))
KERNEL = os.environ.get("TEST_VM", os.path.join(SOURCE, "build-vm"))
BUILD = os.path.realpath(harness.BUILD)
MODULE = os.path.join(BUILD, "driver")
NEWER, NEWER_MODULE = KERNEL + "-newer", MODULE + "-newer"
PROGRAMS = os.path.join(BUILD, "tests", "vm", "driver")


def build_module(*arguments, kernel=KERNEL, module=MODULE):
    """The module, from a copy of its sources; what the compiler said."""
    headers = os.path.join(kernel, "headers")
    if not os.path.exists(headers):
        raise harness.Skip("no headers of the virtual machine's kernel were fetched")
    shutil.copytree(os.path.join(SOURCE, "src", "driver"), module, dirs_exist_ok=True)
    shutil.copytree(os.path.join(SOURCE, "include", "viaduct"), os.path.join(module, "include", "viaduct"),
                    dirs_exist_ok=True)
    done = subprocess.run(["make", "-C", headers, f"M={module}", *arguments, "modules"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
    check(done.returncode == 0, f"make ended with {done.returncode}: {done.stdout[-3000:]}")
    return done.stdout


def in_machine(test, command, seconds, counts=False, kernel=KERNEL, module=MODULE):
    """Runs the command under inside.sh, to its successful end; what it wrote."""
    shared = test.path("shared")
    os.makedirs(shared)
    with open(os.path.join(shared, "command"), "w", encoding="ascii") as script:
        script.write(f"exec sh {HERE}/inside.sh {module}/viaduct.ko {command} >/shared/out 2>&1\n")
    need("qemu-system-x86_64", "busybox", "cpio", "nft")
    boot = ["env", f"VM_COUNTS={int(counts)}", os.path.join(HERE, "..", "boot"), kernel, shared, str(seconds)]
    program = machine.Program(boot, test.path("console"))
    test.programs.append(program)
    status = program.process.wait(seconds + 20)
    try:
        with open(os.path.join(shared, "out"), encoding="utf-8", errors="replace") as text:
            out = text.read()
    except OSError:
        out = ""
    check(status == 0, f"ended with {status}: {out[-6000:]}\n{program.output()}")
    return out


def run_program(test, name, seconds=120):
    build_module()
    out = in_machine(test, os.path.join(PROGRAMS, name), seconds)
    check("[  PASSED  ]" in out and "[  FAILED  ]" not in out, out)
    if "--show" in sys.argv:
        print(out)


def build_quietly(kernel, module):
    """Anew, with all that the compiler and sparse can say; they must not."""
    shutil.rmtree(module, ignore_errors=True)
    need("sparse")
    said = build_module("W=1", "C=2", kernel=kernel, module=module)
    ours = [line for line in said.splitlines() if ("warning" in line or "error" in line) and module in line]
    check(not ours, "\n".join(ours))


@case
def the_module_builds_without_a_warning(_test):
    build_quietly(KERNEL, MODULE)


@case
def the_newest_kernel(test):
    """It builds for the newest that Debian has here, too, and its calls and frames are the same there."""
    build_quietly(NEWER, NEWER_MODULE)
    names = ["calls", "frames"]
    script = " && ".join(os.path.join(PROGRAMS, f"driver_{name}_test") for name in names)
    out = in_machine(test, f"sh -c '{script}'", 240, kernel=NEWER, module=NEWER_MODULE)
    check(out.count("[  PASSED  ]") == len(names) and "[  FAILED  ]" not in out, out)


@case
def calls(test):
    run_program(test, "driver_calls_test")


@case
def frames(test):
    run_program(test, "driver_frames_test")


@case
def paths(test):
    run_program(test, "driver_paths_test")


@case
def hostile(test):
    run_program(test, "driver_hostile_test", 240)


@case
def instructions(test):
    """How many a datagram takes: as docs/driver.md says, and a quarter more at most."""
    build_module()
    out = in_machine(test, os.path.join(PROGRAMS, "driver_cost_test"), 240, counts=True)
    print("# " + "\n# ".join(line for line in out.splitlines() if line.startswith(("sent ", "received "))), flush=True)
    with open(os.path.join(SOURCE, "docs", "driver.md"), encoding="utf-8") as page:
        wanted = re.search(r"takes ([\d,]+) instructions to send alone, ([\d,]+) for each more.*?([\d,]+) to receive", page.read(),
                           re.DOTALL)
    got = re.search(r"sent (\d+) more (\d+).*received (\d+)", out, re.DOTALL)
    check(got and wanted, out)
    for seen, known in zip(got.groups(), wanted.groups()):
        check(int(seen) <= int(known.replace(",", "")) * 1.25, out)


@case
def programs_under_viaduct(test):
    """Unmodified programs against the kernel's TCP and against themselves (tests/network): every byte compared, and none carried by
    the kernel's TCP. It was the driver that carried them."""
    build_module()
    cases = ["python_stream_client_ipv4", "python_stream_server_ipv6", "python_stream_vlan", "sockperf_tcp_both_sides_ipv4"]
    network = os.path.join(SOURCE, "tests", "network")
    programs = (f"env TEST_BUILD={BUILD} PYTHONPATH={SOURCE}/tests/lib:{network} {sys.executable} -B "
                f"{network}/programs_test.py {' '.join(cases)}")
    out = in_machine(test, f"sh -c '{BUILD}/viaduct check; exec {programs}'", 300)
    check("the kernel's char driver (version 1) is used" in out, out)
    check(out.count("\nok ") == len(cases), out)
    counters = dict(line.split()[:2] for line in out[out.index("--- counters"):].splitlines() if len(line.split()) > 2)
    check(int(counters["tx_bytes"]) > 30e6 and int(counters["rx_bytes"]) > 30e6, out)
    check(int(counters["tx_written"]) > 100, out)  # large segments
    check(counters["tx_spoofed"] == "0" and counters["tx_malformed"] == "0", out)


harness.main()
