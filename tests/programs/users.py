# SPDX-License-Identifier: BSD-2-Clause
"""Servers that refuse to run as root, run as the user nobody."""
import os
import shutil
import subprocess

import harness
import machine

MADE = {}  # made_once: by name, a copy of what was made
AS_NOBODY = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


def nobodys_directory(test, name):
    """A directory of that user; Skip where there can't be one (in a user namespace of one user)."""
    path = test.path(name)
    os.mkdir(path, 0o700)
    try:
        shutil.chown(path, "nobody", "nogroup")
    except OSError as error:
        raise harness.Skip(f"can't be another user: {error}") from None
    return path


def as_nobody(test, *command):
    """The command, as that user, who can read the library wherever the build is."""
    library = os.path.join(os.path.dirname(harness.VIADUCT), "libviaduct.so")
    seen = subprocess.run(AS_NOBODY + ["test", "-r", library], check=False, stdin=subprocess.DEVNULL).returncode == 0
    if not seen and test.viaduct == harness.VIADUCT:
        for file in (library, harness.VIADUCT):
            shutil.copy(file, test.directory)
        test.viaduct = test.path("viaduct")
    return AS_NOBODY + list(command)


def made_once(test, name, making):
    """A directory of that user as making(directory), a command, makes it: for the first, and a copy of that for others."""
    data = nobodys_directory(test, "data")
    if name not in MADE:
        machine.run(as_nobody(test, *making(data)), 60)
        MADE[name] = os.path.join(os.path.dirname(test.directory), name)
        shutil.copytree(data, MADE[name])
    else:
        machine.run(["cp", "-r", MADE[name] + "/.", data], 60)
        machine.run(["chown", "-R", "nobody:nogroup", data], 60)
    return data
