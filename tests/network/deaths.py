# SPDX-License-Identifier: BSD-2-Clause
"""Ends of connections whose other end dies. Bytes follow one another as i % 251, so that any gap shows.

  send ADDRESS PORT FILE        connect; send as much as is taken without waiting, over and over; FILE always says how much
  fill ADDRESS PORT FILE        the same until nothing more is taken for a while; then die
  unread ADDRESS PORT           connect, wait for a byte, leave it unread, die when told by a newline
  receive ADDRESS PORT PAUSE    listen, accept one, wait PAUSE seconds, read all; prints BYTES and how it ended
  serve ADDRESS PORT            listen; each connection gets a line, then as much as it takes; for ever
"""
import os
import signal
import socket
import sys
import time

PATTERN = bytes(i % 251 for i in range(251 * 1024))
PIECE = 60000


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def send_some(connection, sent):
    try:
        return connection.send(PATTERN[sent % 251:][:PIECE])
    except BlockingIOError:
        time.sleep(0.001)
        return 0


def send(address, port, path, end_when_full):
    connection = socket.create_connection((address, port))
    connection.setblocking(False)
    sent, idle = 0, time.monotonic()
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    while not end_when_full or time.monotonic() - idle < 0.3:
        now = send_some(connection, sent)
        if now:
            sent += now
            idle = time.monotonic()
            os.pwrite(file, f"{sent:20}".encode(), 0)
    die()


def unread(address, port):
    connection = socket.create_connection((address, port))
    connection.recv(1, socket.MSG_PEEK)
    print("ready", flush=True)
    time.sleep(60)


def listen(address, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)
    return listener


def receive(address, port, pause):
    connection, _ = listen(address, port).accept()
    time.sleep(pause)
    got, how = 0, "end"
    try:
        while part := connection.recv(1 << 16):
            if part != PATTERN[got % 251:][:len(part)]:
                how = "wrong bytes"
                break
            got += len(part)
    except ConnectionResetError:
        how = "reset"
    print(got, how, flush=True)


def serve(address, port):
    listener, kept = listen(address, port), []
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"hello\n")
        connection.setblocking(False)
        try:
            sent = 0
            while True:
                sent += connection.send(PATTERN[sent % 251:][:PIECE])
        except BlockingIOError:
            pass
        kept.append(connection)


def main():
    what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what in ("send", "fill"):
        send(address, port, sys.argv[4], what == "fill")
    elif what == "unread":
        unread(address, port)
    elif what == "receive":
        receive(address, port, float(sys.argv[4]))
    else:
        serve(address, port)


main()
