#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks what the documents and the sources' comments name: links lead to files, paths exist. Prints what does not."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
QUOTED = re.compile(r"`((?:src|preload|tests|bench|include|docs|etc)/[\w./*-]+)`")
# In comments: docs/x.md, src/engine/x.c, or as it is included: engine/x.h.
NAMED = re.compile(r"(?<![\w/.])((?:docs/[\w/-]+\.md)|(?:(?:src/)?(?:engine|host|socket|vnic|daemon|cli|dump)|preload|include/viaduct)"
                   r"/\w+\.(?:c|h|def))\b")
PATTERN = re.compile(r"[A-Z]{2,}")  # tests/unit/FILE_test.c stands for many


def exists(path):
    return PATTERN.search(path.replace("README", "").replace("LICENSE", "")) or any(ROOT.glob(path.rstrip("/")))


def faults(name, text):
    folder = pathlib.Path(name).parent
    if name.endswith(".md"):
        for target in LINK.findall(text):
            if "://" not in target and not (ROOT / folder / target).exists():
                yield f"{name}: the link to {target} leads nowhere"
        for path in QUOTED.findall(text):
            if not exists(path):
                yield f"{name}: there is no {path}"
    else:
        for path in NAMED.findall(text):
            if not exists(path) and not exists("src/" + path):
                yield f"{name}: there is no {path}"


def main():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.md", "*.c", "*.h", "*.def"], check=True,
                            capture_output=True, text=True).stdout.split()
    found = [fault for name in listed if (ROOT / name).exists()
             for fault in faults(name, (ROOT / name).read_text(encoding="utf-8"))]
    print("\n".join(found) or f"{len(listed)} files: all that they name exists")
    return 1 if found or not listed else 0


sys.exit(main())
