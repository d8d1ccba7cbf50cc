# SPDX-License-Identifier: BSD-2-Clause
"""In the virtual machine: does what vm_test.py asks over a control connection, one line of JSON a request (an array: a command
and its arguments), one line an answer (status and output). A request of one string, "end", ends it. guest.py ADDRESS PORT.
"""
import json
import socket
import subprocess
import sys


def answer(request, programs):
    if request[0] == "&":  # in the background, until the end
        programs.append(subprocess.Popen(request[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return 0, ""
    done = subprocess.run(request, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    return done.returncode, done.stdout[-2000:]


def serve(connection):
    programs = []
    with connection, connection.makefile("rw") as stream:
        for line in stream:
            request = json.loads(line)
            if request == "end":
                break
            try:
                reply = answer(request, programs)
            except (OSError, subprocess.SubprocessError) as error:
                reply = 1, str(error)
            print(json.dumps(reply), file=stream, flush=True)
    for program in programs:
        program.kill()


with socket.create_server((sys.argv[1], int(sys.argv[2]))) as control:
    serve(control.accept()[0])
