# SPDX-License-Identifier: BSD-2-Clause
"""Debian's static and Go programs: `viaduct run` says why it refuses them, and they run as ever without it."""
import shutil
import subprocess

import harness
from harness import VIADUCT, case, check, need

GO = "is a Go program: it makes its system calls itself"
STATIC = "is statically linked: there is no dynamic linker"


def refused(program, reason, *arguments):
    need(program)
    command = [shutil.which(program), *arguments]
    alone = subprocess.run(command, capture_output=True, check=False, timeout=20, stdin=subprocess.DEVNULL)
    check(alone.returncode == 0, f"it does not even run without Viaduct: {alone}")
    done = subprocess.run([VIADUCT, "run", *command], capture_output=True, text=True, check=False, timeout=20,
                          stdin=subprocess.DEVNULL)
    check(done.returncode == 126 and done.stdout == "", f"it was run: {done}")
    check(f"{command[0]} {reason}" in done.stderr, f"no reason: {done.stderr}")
    # what the program would find in its environment is not half of an acceleration either
    within = subprocess.run([VIADUCT, "run", "sh", "-c", 'exec "$@"', "sh", *command], capture_output=True, check=False, timeout=20,
                            stdin=subprocess.DEVNULL)
    check((within.returncode, within.stdout) == (0, alone.stdout), f"a shell under Viaduct can't run it: {within}")


@case
def a_go_program_with_a_go_linkers_own_layout_is_refused():
    refused("minify", GO, "--version")


@case
def a_go_program_that_gcc_linked_is_refused():
    refused("gron", GO, "--version")


@case
def a_static_program_is_refused():
    refused("busybox", STATIC, "echo", "x")


if __name__ == "__main__":
    harness.main()
