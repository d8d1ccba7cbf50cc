# SPDX-License-Identifier: BSD-2-Clause
"""Many connections to a peer that is going to be killed: crowd.py serve PORT COUNT | load PORT COUNT [ROUNDS].

The server echoes. The client makes COUNT connections at once, sends without end over all of them and compares what comes back.
Both say "running" when all COUNT are open and data has come back over each, and "ended EOF-or-reset" when all have ended:
the server when they did, the client when the server was gone; it then makes COUNT new ones, ROUNDS times in all, as soon as
somebody listens.
"""
import selectors
import socket
import sys
import time

BLOCK = bytes(range(251)) * 20
IN_FLIGHT = 8  # blocks of each connection


def say(*words):
    print(*words, flush=True)


class Crowd:
    """Connections with their byte counts; how each ended."""

    def __init__(self, echo):
        self.echo, self.selector, self.ended, self.got, self.sent, self.waiting = echo, selectors.DefaultSelector(), [], {}, {}, {}

    def add(self, connection):
        connection.setblocking(False)
        self.got[connection] = self.sent[connection] = 0
        self.waiting[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ if self.echo else selectors.EVENT_READ | selectors.EVENT_WRITE)

    def end(self, connection, how):
        self.ended.append(how)
        self.selector.unregister(connection)
        connection.close()

    def step(self, connection, events):
        """Read and write once; the end is EOF, a reset, or EPIPE after the end was seen."""
        try:
            if events & selectors.EVENT_READ:
                self.read(connection)
            if events & selectors.EVENT_WRITE and connection.fileno() >= 0:
                self.write(connection)
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            self.end(connection, "reset")

    def read(self, connection):
        data = connection.recv(65536)
        if not data:
            self.end(connection, "end")
            return
        at = self.got[connection] % len(BLOCK)
        if data != (BLOCK * (len(data) // len(BLOCK) + 2))[at:at + len(data)]:
            wrong = next(i for i in range(len(data)) if data[i] != BLOCK[(at + i) % len(BLOCK)])
            raise SystemExit(f"wrong bytes from {self.got[connection]} + {wrong} of {len(data)} on: "
                             f"{data[wrong:wrong + 8].hex()}, not {BLOCK[(at + wrong) % len(BLOCK):][:8].hex()}")
        self.got[connection] += len(data)
        if self.echo:
            self.waiting[connection] += data
        self.write(connection)

    def write(self, connection):
        if self.echo:
            if self.waiting[connection]:
                sent = connection.send(self.waiting[connection])
                self.waiting[connection] = self.waiting[connection][sent:]
            wants = bool(self.waiting[connection])
        else:
            wants = self.sent[connection] - self.got[connection] < IN_FLIGHT * len(BLOCK)
            if wants:
                self.sent[connection] += connection.send(BLOCK[self.sent[connection] % len(BLOCK):])
        self.selector.modify(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if wants else 0))

    def all_talk(self, count):
        return sum(got > 0 for got in self.got.values()) == count


def serve(address, count):
    with socket.create_server(address, backlog=512) as listener:
        crowd = Crowd(True)
        crowd.selector.register(listener, selectors.EVENT_READ)
        running = False
        while True:
            for key, events in crowd.selector.select():
                if key.fileobj is listener:
                    crowd.add(listener.accept()[0])
                else:
                    crowd.step(key.fileobj, events)
            if not running and crowd.all_talk(count):
                say("running")
                running = True
            if len(crowd.ended) == count:
                say(count, "ended")
                crowd.selector.close()
                crowd, running = Crowd(True), False
                crowd.selector.register(listener, selectors.EVENT_READ)


def connect(address):
    """Once somebody listens."""
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def one_crowd(address, count):
    """False if connections ended before all were in use: a server that is being killed listens a moment longer."""
    crowd, running = Crowd(False), False
    for _ in range(count):
        crowd.add(connect(address))
    while len(crowd.ended) < count:
        for key, events in crowd.selector.select():
            crowd.step(key.fileobj, events)
        if not running and crowd.all_talk(count):
            say("running")
            running = True
        if crowd.ended and not running:
            for connection in crowd.got:
                connection.close()
            break
    crowd.selector.close()
    return running


def load(address, count, rounds=1):
    while rounds:
        try:
            if not one_crowd(address, count):
                continue
        except ConnectionResetError:
            continue
        say(count, "ended")
        rounds -= 1


if __name__ == "__main__":
    globals()[sys.argv[1]](("127.0.0.1", int(sys.argv[2])), *[int(word) for word in sys.argv[3:]])
