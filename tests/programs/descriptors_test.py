#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors that go to other programs: shells and their commands, programs that can't load the library, SCM_RIGHTS to a plain
process. tests/preload has what must be as on the kernel."""
import os
import socket
import sys

import harness
from harness import HOST, VIADUCT, both, case, check, need, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
SMALL = PYTHON + [os.path.join(HERE, "small.py")]
RIGHTS = PYTHON + [os.path.join(HERE, "rights.py")]
# What a shell opens, its commands read and write: by redirection, as standard input, in a pipe.
COMMANDS = """
exec 3<>/dev/tcp/127.0.0.1/$0
echo one >&3; read -r line <&3; echo "$line"
printf 'two\\nthree\\n' >&3; head -c 10 <&3
(echo four; sleep 0.1) | cat >&3; head -c 5 0<&3 | tr a-z A-Z
perl -e 'print STDERR "perl\\n"; $| = 1; print "five\\n"' >&3 2>&1; head -c 10 <&3
"""
GONE = """
import os, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
os.set_inheritable(s.fileno(), True)
os.execve("/bin/sleep", ["sleep", "1000"], {"VIADUCT_ENABLE": "0"})
"""


@case
def a_shells_commands_go_on_with_its_connection():
    need("bash", "perl")

    def steps(test):
        port = test.port()
        test.start(SMALL + ["echo", port], port)
        with test.carried():
            return test.run(["bash", "-c", COMMANDS, port], 20)
    both(steps)


@case
def a_program_that_can_not_load_the_library_is_named_and_the_peer_told(test):
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    server = test.start(PYTHON + ["-c", f"import socket; s = socket.create_server(('{HOST}', {port}));"
                                  "print('end', s.accept()[0].recv(1), flush=True)"], port)
    gone = test.start(PYTHON + ["-c", GONE, port])
    check("end b''" in test.finish(server, 10), "the peer was not told")
    check("/bin/sleep can't load the library" in gone.output(), f"not named: {gone.output()}")


@case
def a_plain_process_gets_a_listener_but_no_connection(test):
    path, port = test.path("socket"), test.port()
    test.start(SMALL + ["echo", port], port)
    taker = test.start(RIGHTS + ["take", path], plain=True)
    wait_until(lambda: "ready" in taker.output(), 10, "no taker")
    giver = test.start(RIGHTS + ["give", port, path])
    wait_until(lambda: "port " in giver.output(), 10, giver.output)
    check("not passed: Operation not supported" in giver.output() and "answered True" in giver.output(), giver.output())
    explained = test.run([VIADUCT, "explain", giver.process.pid], plain=True)
    check("could not be passed to another process" in explained, f"no reason: {explained}")
    passed = int(giver.output().split("port ")[1].split()[0])
    with socket.create_connection((HOST, passed), 10) as client:
        client.sendall(b"word")
        check(client.recv(16) == b"WORD", "the passed listener serves nobody")
    check("got listener 1" in test.finish(taker, 10), taker.output())


harness.main()
