# SPDX-License-Identifier: BSD-2-Clause
"""A program of Open MPI's, by ctypes: messages of all sizes to and fro between two ranks, then each to all. Rank 0 prints a digest."""
import ctypes
import hashlib
import random

SIZES = [0, 1, 100, 4096, 65536, 70001, 1 << 20]
EACH = 30000

mpi = ctypes.CDLL("libmpi.so.40", ctypes.RTLD_GLOBAL)
WORLD = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_comm_world"))
BYTE = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_byte"))


def call(name, *arguments):
    assert getattr(mpi, name)(*arguments) == 0, name


def number(name):
    value = ctypes.c_int()
    call(name, WORLD, ctypes.byref(value))
    return value.value


def send(data, to):
    call("MPI_Send", data, len(data), BYTE, to, 1, WORLD)


def receive(size, source):
    buffer = ctypes.create_string_buffer(size + 1)
    call("MPI_Recv", buffer, size, BYTE, source, 1, WORLD, None)
    return buffer.raw[:size]


def ping_pong(rank, digest):
    for turn in range(60):
        for size in SIZES:
            if rank == 0:
                data = random.Random(turn).randbytes(size)
                send(data, 1)
                assert receive(size, 1) == data[::-1], size
                digest.update(data)
            elif rank == 1:
                send(receive(size, 0)[::-1], 0)


def each_to_all(rank, ranks, digest):
    out = b"".join(random.Random(100 * rank + other).randbytes(EACH) for other in range(ranks))
    back = ctypes.create_string_buffer(EACH * ranks)
    for _ in range(10):
        call("MPI_Alltoall", out, EACH, BYTE, back, EACH, BYTE, WORLD)
        assert back.raw == b"".join(random.Random(100 * other + rank).randbytes(EACH) for other in range(ranks))
    digest.update(back.raw)


def main():
    call("MPI_Init", None, None)
    rank, ranks, digest = number("MPI_Comm_rank"), number("MPI_Comm_size"), hashlib.sha256()
    ping_pong(rank, digest)
    each_to_all(rank, ranks, digest)
    if rank == 0:
        print(ranks, digest.hexdigest())
    call("MPI_Finalize")


main()
