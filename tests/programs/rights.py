# SPDX-License-Identifier: BSD-2-Clause
"""rights.py give PORT SOCKET: connects to PORT, and passes that connection, then a listener of its own, to whoever listens at the Unix
SOCKET; says how it went, and stays. rights.py take SOCKET: gets what comes there and says what it can do with it."""
import socket
import sys
import time


def say(*words):
    print(*words, flush=True)


def give(port, path):
    connection = socket.create_connection(("127.0.0.1", port))
    listener = socket.create_server(("127.0.0.1", 0))
    with socket.socket(socket.AF_UNIX) as to:
        to.connect(path)
        try:
            socket.send_fds(to, [b"connection"], [connection.fileno()])
            say("passed")
        except OSError as e:
            say("not passed:", e.strerror)
        connection.sendall(b"still mine")
        say("answered", connection.recv(64) == b"still mine")
        socket.send_fds(to, [b"listener"], [listener.fileno()])
        say("port", listener.getsockname()[1])
    listener.close()
    time.sleep(1000)


def take(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        say("ready")
        what, fds, _, _ = socket.recv_fds(listener.accept()[0], 64, 4)
    say("got", what.decode(), len(fds))
    with socket.socket(fileno=fds[0]) as passed:
        peer = passed.accept()[0]
        peer.sendall(peer.recv(64).upper())


if __name__ == "__main__":
    {"give": lambda: give(int(sys.argv[2]), sys.argv[3]), "take": lambda: take(sys.argv[2])}[sys.argv[1]]()
