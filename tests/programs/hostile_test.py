# SPDX-License-Identifier: BSD-2-Clause
"""What stands in the way of a wire: squatted names, silent clients, other users, pools and descriptors that run out. The
program is served all the same, and `viaduct explain` says why the kernel does it."""
import os
import socket
import struct
import subprocess
import sys
import time

import harness
from harness import case, check, need
from machine import run

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
SMALL = [PYTHON, "-B", os.path.join(HERE, "small.py")]


def name_of(port, proto="tcp"):
    return f"\0viaduct1/{proto}/127.0.0.1/{port}"


def squat(test, port):
    """A process that is no relative of the listener's has its name: a parent or a child of it would be believed."""
    code = ("import socket, sys, time\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "s.bind('\\0' + sys.argv[1]); s.listen(8); print('squats', flush=True); time.sleep(1000)")
    until(test.start([PYTHON, "-c", code, name_of(port)[1:]], plain=True), "squats")


def explained(test, program, sentence):
    text = run([harness.VIADUCT, "explain", str(program.process.pid)], 60)
    check(sentence in text, f"explain does not say «{sentence}»:\n{text}")
    return text


def until(program, word, seconds=60):
    end = time.monotonic() + seconds
    while word not in program.output():
        check(time.monotonic() < end and program.process.poll() is None, f"no «{word}»: {program.output()}")
        time.sleep(0.02)


@case
def a_squatter_with_the_name_but_not_the_port(test):
    """The listener falls back to the kernel; a client is not fooled either."""
    port = test.port()
    squat(test, port)
    server = test.start(SMALL + ["echo", port], port)
    client = test.start(SMALL + ["talk", port, 100])
    until(client, "right 100")
    explained(test, server, "Several sockets share its port")
    explained(test, client, "does not own the listening port")
    client.process.kill()


@case
def a_squatter_before_a_plain_listener(test):
    port = test.port()
    squat(test, port)
    test.start(SMALL + ["echo", port], port, plain=True)
    client = test.start(SMALL + ["talk", port, 10])
    until(client, "right 10")
    explained(test, client, "does not own the listening port")


@case
def silent_clients_delay_nobody(test):
    """More of them than there is room for; each new process still gets its wire at once."""
    port = test.port()
    server = test.start(SMALL + ["echo", port], port, knobs=["HANDSHAKE_MS=3000"])
    silent = []
    for _ in range(100):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.setblocking(False)
        one.connect(name_of(port))
        silent.append(one)
    for _ in range(3):
        client = test.start(SMALL + ["talk", port, 10])
        until(client, "right 10")
        explained(test, client, "accelerated, over vNIC")
        milliseconds = int(client.output().split("connected in ")[1].split()[0])
        check(milliseconds < 2500, f"connecting took {milliseconds} ms")  # as long as the silent may take: 3000
    fds = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    check(fds < 100, f"the server holds {fds} descriptors")
    end = time.monotonic() + 30
    while (left := len(os.listdir(f"/proc/{server.process.pid}/fd"))) >= 40:
        check(time.monotonic() < end, f"the server still holds {left} descriptors")
        time.sleep(0.1)
    for one in silent:
        one.close()


@case
def another_users_listener(test):
    """By default the kernel carries it, whoever of the two came first."""
    need("setpriv")
    other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    third = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups"]
    if os.system(" ".join(other) + f" sh -c 'test -x {harness.VIADUCT} && test -r {SMALL[2]}' 2>/dev/null") != 0:
        raise harness.Skip("other users can't be had here, or can't reach the build")
    for knobs, sentence in ((), "runs as another user"), (("PEERS=any",), "accelerated, over vNIC"):
        port = test.port()
        server = test.start(third + test.wrapped(SMALL + ["echo", port], knobs=knobs), port, plain=True)
        client = test.start(other + test.wrapped(SMALL + ["talk", port, 10], knobs=knobs), plain=True)
        until(client, "right 10")
        explained(test, client, sentence)
        for program in (client, server):
            program.stop()


@case
def no_sockets_left(test):
    """The kernel serves those for which the stack has no room, at both ends, and the others stay accelerated."""
    port = test.port()
    test.start(SMALL + ["echo", port], port)
    client = test.start(SMALL + ["many", port, 300], knobs=["SOCKETS=256"])
    until(client, "right 300")
    text = explained(test, client, "The stack has no free socket; raise VIADUCT_SOCKETS.")
    check("accelerated, over vNIC" in text, "none is accelerated")


@case
def no_sockets_left_at_the_server(test):
    port = test.port()
    server = test.start(SMALL + ["echo", port], port, knobs=["SOCKETS=256"])
    client = test.start(SMALL + ["many", port, 300])
    until(client, "right 300")
    explained(test, server, "accelerated, over vNIC")
    explained(test, client, "raise VIADUCT_SOCKETS there")


@case
def readers_that_do_not_read(test):
    """Many connections are filled until the sender is held back; then all is read, and nothing was lost."""
    port = test.port()
    test.start(SMALL + ["fill", port, 60], port)
    client = test.start(SMALL + ["drain", port, 60])
    until(client, "all there")


# Of a socket that is handed over a message says, in a memfd of this name, which descriptors are which.
TAKES_DESCRIPTORS = """
import os, socket, sys
here = socket.fromfd(int(sys.argv[1]), socket.AF_UNIX, socket.SOCK_STREAM)
for _ in range(int(sys.argv[2])):
    data, fds, _, _ = socket.recv_fds(here, 10, 10)
    print(data.decode(), len(fds), flush=True)
    for fd in fds:
        os.close(fd)
"""


@case
def messages_that_lie_about_their_descriptors_crash_nobody(test):
    """From a process that may be anybody's: counts that lead outside, places that there are not."""
    lies = [b"\xa5" * 65536, struct.pack("<QIIIIIII", 0x52564F4854434456, 1, 0, 2, 1, 2**31, 2**31, 2**32 - 1).ljust(65536, b"\xff"),
            b"", b"VDCTHOVR" * 9000]
    here, there = socket.socketpair()
    taker = test.wrapped([PYTHON, "-c", TAKES_DESCRIPTORS, there.fileno(), len(lies)])
    with open(test.path("taker.log"), "w+b") as log, subprocess.Popen(taker, pass_fds=[there.fileno()], stdout=log,
                                                                      stderr=log) as program:
        for lie in lies:
            memfd = os.memfd_create("viaduct:handover")
            os.write(memfd, lie)
            socket.send_fds(here, [b"lie"], [0, memfd])
            os.close(memfd)
            time.sleep(0.1)
        code = program.wait(30)
        log.seek(0)
        said = log.read().decode()
    check(code == 0 and said.count("lie ") == len(lies), f"ended with {code}: {said}")


if __name__ == "__main__":
    harness.main()
