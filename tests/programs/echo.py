# SPDX-License-Identifier: BSD-2-Clause
"""asyncio: echo.py server PORT | client PORT CONNECTIONS ROUNDS. The client prints a digest of all it got back."""
import asyncio
import hashlib
import random
import sys


async def serve(reader, writer):
    while data := await reader.read(30000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def server(port):
    async with await asyncio.start_server(serve, "127.0.0.1", port) as listener:
        await listener.serve_forever()


async def talk(port, number, rounds):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    rng, digest = random.Random(number), hashlib.sha256()
    for _ in range(rounds):
        data = rng.randbytes(rng.randrange(1, 50000))
        writer.write(data)
        got = await reader.readexactly(len(data))
        assert got == data
        digest.update(got)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    return digest.hexdigest()


async def client(port, connections, rounds):
    found = await asyncio.gather(*(talk(port, i, rounds) for i in range(connections)))
    print(hashlib.sha256("".join(found).encode()).hexdigest())


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    asyncio.run(server(*numbers) if sys.argv[1] == "server" else client(*numbers))
