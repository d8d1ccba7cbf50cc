# SPDX-License-Identifier: BSD-2-Clause
"""One end of a connection that is going to be disturbed: peer.py listen|connect PORT ROLE. Prints what it saw, a line each.

Roles: send (for ever), take (read for ever), slow (read a little, then sleep), hold (wait in recv), poll (wait in epoll for
any event), unread (sleep, reading nothing), greet (send one message, then sleep),
first (read one message), sendpoll (nonblocking sends with poll).
"""
import errno
import select
import socket
import sys
import time


def say(*words):
    print(*words, flush=True)


def outcome(call):
    """The result of a socket call as a word."""
    try:
        got = call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return f"{len(got)} bytes" if isinstance(got, bytes) else str(got)


def send(connection):
    block = bytes(range(256)) * 256
    try:
        while True:
            connection.sendall(block)
    except OSError as error:
        say("send:", errno.errorcode[error.errno])
    say("then send:", outcome(lambda: connection.send(b"x")))
    say("then recv:", outcome(lambda: connection.recv(10)))


def take(connection):
    """All bytes up to the end must be the pattern."""
    total = 0
    try:
        while data := connection.recv(65536):
            expected = bytes(range(256)) * (len(data) // 256 + 2)
            assert data == expected[total % 256:total % 256 + len(data)], f"wrong byte near {total}"
            total += len(data)
        say("recv: end of stream, some bytes:", total > 0)
    except OSError as error:
        say("recv:", errno.errorcode[error.errno], "some bytes:", total > 0)
    say("then recv:", outcome(lambda: connection.recv(10)))


def slow(connection):
    connection.recv(1000)
    time.sleep(1000)


def hold(connection):
    say("recv:", outcome(lambda: connection.recv(10)))
    say("then send:", outcome(lambda: connection.send(b"x")))
    time.sleep(0.2)
    say("then send:", outcome(lambda: connection.send(b"x")))
    say("then recv:", outcome(lambda: connection.recv(10)))


def poll(connection):
    with select.epoll() as interest:
        interest.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
        say("epoll:", hex(interest.poll(20)[0][1]))
    say("SO_ERROR:", connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    say("recv:", outcome(lambda: connection.recv(10)))


def unread(_):
    time.sleep(1000)


def greet(connection):
    connection.send(b"hello")
    time.sleep(1000)


def first(connection):
    say("recv:", outcome(lambda: connection.recv(10)))


def sendpoll(connection):
    connection.setblocking(False)
    waiter = select.poll()
    waiter.register(connection, select.POLLOUT)
    try:
        while True:
            try:
                connection.send(bytes(range(256)) * 256)
            except BlockingIOError:
                waiter.poll(20000)
    except OSError as error:
        say("send:", errno.errorcode[error.errno])


def main():
    address = ("127.0.0.1", int(sys.argv[2]))
    if sys.argv[1] == "listen":
        with socket.create_server(address) as listener:
            connection = listener.accept()[0]
    else:
        connection = socket.create_connection(address)
    say("ready")
    globals()[sys.argv[3]](connection)


if __name__ == "__main__":
    main()
