# SPDX-License-Identifier: BSD-2-Clause
"""A peer for tests: stream.py serve ADDRESS PORT COUNT | fetch ADDRESS PORT COUNT BYTES.

serve takes COUNT connections and sends back what it reads; fetch opens them one after the other, sends BYTES random
bytes on each while it reads, and compares.
"""
import os
import socket
import sys
import threading


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(address, port, count):
    with socket.socket(family(address), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)
        for _ in range(count):
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)


def send(connection, data):
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def fetch(address, port, count, size):
    for _ in range(count):
        data, got = os.urandom(size), bytearray()
        with socket.create_connection((address, port), timeout=20) as connection:
            sender = threading.Thread(target=send, args=(connection, data))
            sender.start()
            while part := connection.recv(1 << 16):
                got += part
            sender.join()
        if got != data:
            sys.exit(f"{len(got)} of {size} bytes came back, or others")


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    fetch(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
