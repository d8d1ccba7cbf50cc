# SPDX-License-Identifier: BSD-2-Clause
"""Small servers and clients: small.py echo PORT | talk PORT TIMES | many PORT CONNECTIONS | fill PORT CONNECTIONS | drain PORT CONNECTIONS.
Clients stay when they are done, to be looked at."""
import selectors
import socket
import sys
import time

ADDRESS = ("127.0.0.1", int(sys.argv[2]))
PATTERN = bytes(range(256)) * 512


def say(*words):
    print(*words, flush=True)


def echo():
    with socket.create_server(ADDRESS, backlog=512) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                    continue
                try:
                    data = key.fileobj.recv(65536)
                except ConnectionError:
                    data = b""
                if data:
                    key.fileobj.sendall(data)
                else:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def ask(connection, data):
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        more = connection.recv(len(data) - len(got))
        if not more:
            break
        got += more
    return got == data


def talk(times):
    start = time.monotonic()
    connection = socket.create_connection(ADDRESS)
    say("connected in", round((time.monotonic() - start) * 1000), "ms")
    say("right", sum(ask(connection, b"%d" % i) for i in range(times)))
    time.sleep(1000)


def many(connections):
    opened = [socket.create_connection(ADDRESS) for _ in range(connections)]
    say("right", sum(ask(connection, b"%d" % i) for i, connection in enumerate(opened)))
    time.sleep(1000)


def fill(connections):
    """Send to each, in turns, until nothing more goes; then the rest of a megabyte each, as the reader takes it."""
    with socket.create_server(ADDRESS, backlog=512) as listener:
        left = {listener.accept()[0]: 8 for _ in range(connections)}
    with selectors.DefaultSelector() as selector:
        waiting = {}
        for connection, blocks in left.items():
            connection.setblocking(False)
            waiting[connection] = PATTERN * blocks
            selector.register(connection, selectors.EVENT_WRITE)
        while waiting:
            for key, _ in selector.select():
                try:
                    sent = key.fileobj.send(waiting[key.fileobj][:200000])
                except BlockingIOError:
                    continue
                waiting[key.fileobj] = waiting[key.fileobj][sent:]
                if not waiting[key.fileobj]:
                    del waiting[key.fileobj]
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def drain(connections):
    opened = [socket.create_connection(ADDRESS) for _ in range(connections)]
    time.sleep(1)
    for connection in opened:
        got = bytearray()
        while data := connection.recv(65536):
            got += data
        assert got == PATTERN * 8, f"{len(got)} bytes"
    say("all there")
    time.sleep(1000)


if __name__ == "__main__":
    globals()[sys.argv[1]](*[int(word) for word in sys.argv[3:]])
