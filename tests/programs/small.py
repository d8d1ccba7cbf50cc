# SPDX-License-Identifier: BSD-2-Clause
"""Small servers and clients: small.py echo PORT | talk PORT TIMES | many PORT CONNECTIONS. Clients stay when they are done, to be looked at."""
import selectors
import socket
import sys
import time

ADDRESS = ("127.0.0.1", int(sys.argv[2]))


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


if __name__ == "__main__":
    globals()[sys.argv[1]](*[int(word) for word in sys.argv[3:]])
