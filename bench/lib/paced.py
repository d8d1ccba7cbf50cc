# SPDX-License-Identifier: BSD-2-Clause
"""paced.py HOST PORT RATE SECONDS PID: redis GETs at a fixed rate; prints the CPU time of process PID per request, in us."""
import os
import socket
import sys
import time


def cpu_ns(pid):
    """What a process and its threads have used."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as text:
            total += int(text.read().split()[0])
    return total


def main():
    host, port, rate, seconds, pid = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
    request, count = b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n", max(1, int(rate * seconds))
    with socket.create_connection((host, port), timeout=5) as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began, used = time.monotonic(), cpu_ns(pid)
        for i in range(count):
            time.sleep(max(0, began + i / rate - time.monotonic()))
            c.sendall(request)
            if c.recv(100) != b"$-1\r\n":
                sys.exit("redis gave another answer")
        used = cpu_ns(pid) - used
    if time.monotonic() - began > 1.3 * seconds:
        sys.exit("the rate could not be kept")
    print(f"cpu_us {used / count / 1000:.3f}")


main()
