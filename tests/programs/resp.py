# SPDX-License-Identifier: BSD-2-Clause
"""A Redis client over plain sockets, run as a program of its own: resp.py PORT MODE [ARGS]. Prints digests of what it read."""
import hashlib
import random
import socket
import sys
import time


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb", 65536)

    def send(self, *parts):
        data = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        self.socket.sendall(b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in data))

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"-":
            raise ValueError(rest.decode())
        return int(rest) if kind == b":" else rest

    def call(self, *parts):
        self.send(*parts)
        return self.reply()

    def info(self, field):
        for line in self.call("INFO").splitlines():
            if line.startswith(field.encode() + b":"):
                return line.split(b":", 1)[1].decode()
        return None


def values(client, count, largest):
    """SET and GET back values of random length, one by one."""
    rng, digest = random.Random(1), hashlib.sha256()
    for i in range(count):
        value = rng.randbytes(rng.randrange(largest))
        assert client.call("SET", f"key{i}", value) == b"OK"
        got = client.call("GET", f"key{i}")
        assert got == value, f"value {i} differs"
        digest.update(got)
    return digest.hexdigest()


def pipeline(client, count, depth):
    """The same in batches."""
    rng, digest = random.Random(2), hashlib.sha256()
    for start in range(0, count, depth):
        batch = [rng.randbytes(rng.randrange(3000)) for _ in range(depth)]
        for i, value in enumerate(batch):
            client.send("SET", f"pipe{start + i}", value)
        for _ in batch:
            assert client.reply() == b"OK"
        for i in range(depth):
            client.send("GET", f"pipe{start + i}")
        for value in batch:
            got = client.reply()
            assert got == value
            digest.update(got)
    return digest.hexdigest()


def big(client, megabytes):
    """One value of that size, written and read back."""
    value = random.Random(megabytes).randbytes(1 << 20) * megabytes
    assert client.call("SET", "big", value) == b"OK"
    got = client.call("GET", "big")
    assert got == value
    return hashlib.sha256(got).hexdigest()


def save(client, command, busy, done):
    """Traffic while Redis' forked child writes its data out; returns the digest of all that was read."""
    for i in range(2000):
        client.send("SET", f"save{i}", b"x" * 2000)
    for i in range(2000):
        assert client.reply() == b"OK"
    client.call(command)
    rounds, end = 0, time.monotonic() + 20
    while rounds < 300 or client.info(busy) != "0":
        assert time.monotonic() < end, "the child does not end"
        assert client.call("SET", f"during{rounds % 300}", str(rounds % 300) * 100) == b"OK"
        assert client.call("GET", f"during{rounds % 300}") == str(rounds % 300).encode() * 100
        rounds += 1
    return client.info(done)


def digest(client):
    """Of what save() wrote before the child was forked."""
    total = hashlib.sha256()
    keys = sorted(client.call("KEYS", "save*"))
    for key in keys:
        total.update(key + b"=" + client.call("GET", key))
    return f"{len(keys)} {total.hexdigest()}"


def main():
    client = Client(int(sys.argv[1]))
    mode, arguments = sys.argv[2], [int(word) for word in sys.argv[3:]]
    if mode == "bgsave":
        print(save(client, "BGSAVE", "rdb_bgsave_in_progress", "rdb_last_bgsave_status"))
    elif mode == "rewrite":
        print(save(client, "BGREWRITEAOF", "aof_rewrite_in_progress", "aof_last_bgrewrite_status"))
    else:
        print({"values": values, "pipeline": pipeline, "big": big, "digest": digest}[mode](client, *arguments))


if __name__ == "__main__":
    main()
