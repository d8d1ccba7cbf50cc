# SPDX-License-Identifier: BSD-2-Clause
"""Servers that refuse to run as root, run as the user nobody."""
import os
import shutil
import subprocess

import harness

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
