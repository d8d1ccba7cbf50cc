#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# The layers of docs/architecture.md, held against the sources: what a file includes lies in its own layer or in one below;
# vnic and engine include nothing of the kernel or of threads.
# With a library's path: it needs no other library than the C library, so it can be preloaded into any program.
#
#   tests/lib/layers.py [LIBRARY]     prints what is wrong; exit status 1 if there is anything
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What each directory may include besides its own files. dump is a separate program that shares the command's view of stacks.
BELOW = {
    "src/vnic": [],
    "src/engine": ["vnic"],
    "src/host": ["engine", "vnic"],
    "src/socket": ["host", "engine", "vnic"],
    "preload": ["socket", "host"],
    "src/daemon": ["host", "engine", "vnic"],
    "src/cli": ["socket", "host", "engine", "vnic"],
    "src/dump": ["cli", "engine"],
    "src/driver": [],
}
# Pure: bytes in, bytes out. if_xdp.h is the layout of rings, uio.h and types.h are struct iovec and ssize_t.
PURE = ["src/vnic", "src/engine"]
PURE_MAY = {"assert.h", "errno.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "string.h", "sys/types.h",
            "sys/uio.h", "linux/if_xdp.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def wrong_include(directory, quote, name):
    """Why a file of that directory may not include that, or None."""
    own = directory.removeprefix("src/")
    if quote == "<" or name.startswith("viaduct/"):
        if directory in PURE and name not in PURE_MAY and not name.startswith("viaduct/"):
            return "is not for a layer that makes no system calls"
        return None
    layer = name.split("/")[0] if "/" in name else own
    if layer == own or layer in BELOW[directory]:
        return None
    return "lies in a layer that is not below"


def check_includes():
    wrong = []
    for directory in BELOW:
        files = [f for f in sorted((ROOT / directory).iterdir()) if f.suffix in (".c", ".h", ".def")]
        if not files:
            wrong.append(f"{directory}: no source files: the list of layers is out of date")
        for file in files:
            for quote, name in INCLUDE.findall(file.read_text()):
                why = wrong_include(directory, quote, name)
                if why:
                    wrong.append(f"{file.relative_to(ROOT)}: {name} {why}")
    return wrong


def check_list():
    """Each directory of sources has its place in the list."""
    found = {f"src/{d.name}" for d in (ROOT / "src").iterdir() if d.is_dir() and any(d.glob("*.c"))}
    return [f"{d}: no layer of that name is known here" for d in sorted(found - BELOW.keys())]


def check_library(path):
    said = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", said)
    if not needed:
        return [f"{path}: readelf names no library at all"]
    return [f"{path} needs {name}" for name in needed if not re.match(r"(libc|ld-linux[\w-]*)\.so", name)]


def main():
    wrong = check_includes() + check_list()
    if len(sys.argv) > 1:
        wrong += check_library(sys.argv[1])
    print("\n".join(wrong) or "layers: nothing includes what is above it")
    return 1 if wrong else 0


sys.exit(main())
