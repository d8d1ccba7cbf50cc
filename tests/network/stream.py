# SPDX-License-Identifier: BSD-2-Clause
"""A peer for tests: stream.py serve ADDRESS PORT COUNT | fork ADDRESS PORT COUNT | fetch ADDRESS PORT COUNT BYTES |
pace ADDRESS PORT SECONDS | pour ADDRESS PORT BYTES | drink ADDRESS PORT SECONDS | reflect ADDRESS PORT | ask ADDRESS PORT COUNT.

serve takes COUNT connections and sends back what it reads, each in a thread; fork does so in a process for each. fetch
opens them one after the other, sends BYTES random bytes on each while it reads, and compares. pace exchanges small
messages over one connection, and prints how many. pour sends BYTES and ends at once; drink takes one connection,
reads it after SECONDS, and prints the digest of what came. reflect sends datagrams back for ever; ask sends COUNT of them, one
after the other, again when nothing comes back, and compares.
"""
import hashlib
import os
import random
import socket
import sys
import threading
import time


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echo(connection):
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def listen(address, port):
    listener = socket.socket(family(address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)
    return listener


def serve(address, port, count):
    threads = []
    with listen(address, port) as listener:
        for _ in range(count):
            connection, _ = listener.accept()
            threads.append(threading.Thread(target=echo, args=(connection,)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def fork(address, port, count):
    with listen(address, port) as listener:
        for _ in range(count):
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                echo(connection)
                os._exit(0)
            connection.close()
    for _ in range(count):
        if os.wait()[1]:
            sys.exit("a child failed")


def pace(address, port, seconds):
    end, rounds = time.monotonic() + seconds, 0
    with socket.create_connection((address, port), timeout=20) as connection:
        while time.monotonic() < end:
            data, got = os.urandom(1000), bytearray()
            connection.sendall(data)
            while len(got) < len(data):
                part = connection.recv(len(data) - len(got))
                if not part:
                    sys.exit(f"the end came after {rounds} rounds")
                got += part
            if got != data:
                sys.exit(f"other bytes came back after {rounds} rounds")
            rounds += 1
            time.sleep(0.001)
    print(rounds)


def pour(address, port, size):
    connection = socket.create_connection((address, port), timeout=20)
    connection.sendall(random.Random(size).randbytes(size))


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


def drink(address, port, seconds):
    digest = hashlib.sha256()
    with listen(address, port) as listener:
        connection, _ = listener.accept()
    time.sleep(seconds)
    with connection:
        while part := connection.recv(1 << 16):
            digest.update(part)
    print(digest.hexdigest())


def reflect(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        while True:
            data, peer = server.recvfrom(1 << 16)
            server.sendto(data, peer)


def asked(client, data):
    """Something was lost, or came twice: a few more attempts."""
    for _ in range(10):
        client.send(data)
        try:
            while client.recv(1 << 16) != data:
                pass
            return True
        except TimeoutError:
            pass
    return False


def ask(address, port, count):
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((address, port))
        for i in range(count):
            if not asked(client, i.to_bytes(4, "big") + os.urandom(i * 13 % 1400)):
                sys.exit(f"datagram {i} did not come back")


ACTIONS = {"ask": ask, "drink": drink, "fetch": fetch, "fork": fork, "pace": pace, "pour": pour, "reflect": reflect, "serve": serve}
ACTIONS[sys.argv[1]](sys.argv[2], *(int(word) for word in sys.argv[3:]))
