#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks docs/conformance.md: all 69 MUSTs are there, and every file, function, test and script named exists."""
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FIRST, LAST = 1, 69


def text_of(*directories):
    parts = []
    for directory in directories:
        base = os.path.join(ROOT, directory)
        for name in sorted(os.listdir(base)):
            if name.endswith(".c"):
                with open(os.path.join(base, name), encoding="utf-8") as source:
                    parts.append(source.read())
    return "\n".join(parts)


def test_faults(cell):
    """file: `test`, `test`, tests/dir: `test`"""
    where = None
    for place, name in re.findall(r"(?:([\w/]+): )?`(\w+)`", cell):
        where = place or where
        if where == "script":
            if not os.path.exists(os.path.join(ROOT, f"tests/packetdrill/scripts/{name}.txt")):
                yield f"no script {name}"
            continue
        path = where if where.startswith("tests/") else f"tests/unit/{where}_test.c"
        if path.endswith(".c"):
            if not os.path.exists(os.path.join(ROOT, path)):
                yield f"no file {path}"
                continue
            with open(os.path.join(ROOT, path), encoding="utf-8") as source:
                found = source.read()
        else:
            found = text_of(path)
        if not re.search(rf"\b{name}\(void \*\*", found):
            yield f"no test {name} in {path}"


def code_faults(cell, engine):
    for name in re.findall(r"`([^`]+)`", cell):
        if "/" in name:
            if not os.path.exists(os.path.join(ROOT, name)):
                yield f"no file {name}"
        elif not re.search(rf"(?m)^[a-z][\w \*]*\b{name}\(", engine):
            yield f"no function {name}"


def main():
    engine, seen, faults, heading = text_of("src/engine"), set(), [], ""
    with open(os.path.join(ROOT, "docs/conformance.md"), encoding="utf-8") as table:
        for line in table:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if cells[-1].startswith("---"):
                continue
            if heading == "tests" or cells[0].startswith("SHLD "):
                faults += [f"{cells[0]}: {fault}" for fault in test_faults(cells[-1])]
            if cells[-1] == "tests" or line.startswith("#"):
                heading = cells[-1]
            if len(cells) != 4 or not re.match(r"\d", cells[0]) or heading == "# Other RFCs":
                continue
            seen.update(int(number) for number in re.findall(r"\d+", cells[0]))
            faults += [f"{cells[0]}: {fault}" for fault in code_faults(cells[2], engine)]
            faults += [f"{cells[0]}: {fault}" for fault in test_faults(cells[3])]
    faults += [f"MUST {number} is missing" for number in range(FIRST, LAST + 1) if number not in seen]
    print("\n".join(faults) or "complete")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
