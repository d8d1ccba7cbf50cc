# SPDX-License-Identifier: BSD-2-Clause
"""pump.py ADDRESS PORT SECONDS [PIECE]: connects to a server that sends back what it reads (stream.py serve), sends for so
long, in pieces with small pauses, and compares. Prints "started", then how many bytes came back and the longest time that
nothing came, or how it ended."""
import socket
import sys
import threading
import time

PATTERN = bytes(i % 251 for i in range(251 * 1024))
SILENCE = 40

TROUBLE = []


def send(connection, seconds, piece):
    end, sent = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < end:
            connection.sendall(PATTERN[sent % 251:][:piece])
            sent += piece
            time.sleep(0.002)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        TROUBLE.append(error.strerror)


def watch(last):
    while time.monotonic() - last[0] < SILENCE:
        time.sleep(1)
    print(f"nothing came for {SILENCE} s", flush=True)
    os._exit(1)


def main():
    address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    piece = int(sys.argv[4]) if len(sys.argv) > 4 else 20000
    connection = socket.create_connection((address, port), timeout=60)
    connection.settimeout(None)
    threading.Thread(target=send, args=(connection, seconds, piece), daemon=True).start()
    print("started", flush=True)
    got, last, silence = 0, [time.monotonic()], 0.0
    threading.Thread(target=watch, args=(last,), daemon=True).start()
    try:
        while part := connection.recv(1 << 16):
            if part != PATTERN[got % 251:][:len(part)]:
                sys.exit(f"wrong bytes after {got}")
            got += len(part)
            silence, last[0] = max(silence, time.monotonic() - last[0]), time.monotonic()
    except OSError as error:
        sys.exit(f"{error.strerror} after {got}")
    if TROUBLE:
        sys.exit(f"{TROUBLE[0]} after {got}")
    if got % piece:
        sys.exit(f"the end after {got}")
    print(got, f"{silence:.2f}", flush=True)


main()
