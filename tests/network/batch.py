# SPDX-License-Identifier: BSD-2-Clause
"""Two ends of several sockets. The server lets requests pile up, is given them all at once by epoll, and answers.

  serve PROTOCOL ADDRESS PORT SOCKETS HOW FLAG   one batch; answers the first of SOCKETS requests, then, HOW:
      computes   without a single call, until the byte in the file FLAG says that the answer has come
      returns | _exits | is-killed | executes    ends or goes on in one of these ways, right after
      forks      the child is stopped, and the parent killed
      waits      all are answered, BATCHES times
  ask PROTOCOL ADDRESS PORT SOCKETS HOW FLAG     the other end
"""
import ctypes
import mmap
import os
import select
import signal
import socket
import sys
import time

BATCHES = 20
REQUEST, ANSWER = b"request", b"answer"


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def flag_of(path):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 1)


def connections(protocol, address, port, count):
    if protocol == "tcp":
        with socket.create_server((address, port), family=family(address)) as listener:
            return [listener.accept()[0] for _ in range(count)]
    found = []
    for i in range(count):
        found.append(socket.socket(family(address), socket.SOCK_DGRAM))
        found[-1].bind((address, port + i))
    for one in found:
        one.connect(one.recvfrom(100)[1])
        one.send(b"hello")
    return found


def compute(flag):
    end = time.monotonic() + 10  # the clock is no system call
    while not flag[0]:
        if time.monotonic() > end:
            sys.exit("the answer did not come while the program computed")


def go_on(how, flag):
    if how == "computes":
        compute(flag)
    elif how == "_exits":
        os._exit(0)
    elif how == "is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "executes":
        os.execv("/bin/sleep", ["sleep", "2"])
    elif how == "forks":
        parent = os.getpid()
        if os.fork() == 0:
            os.kill(parent, signal.SIGKILL)
            compute(flag)
        compute(flag)


def all_at_once(watched, count):
    """What epoll says when all requests have come."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        ready = watched.poll(10)
        if len(ready) == count:
            return ready
        time.sleep(0.01)
    sys.exit("some requests have not come")


def serve(protocol, address, port, count, how, flag):
    ctypes.CDLL(None)  # nothing is loaded later
    ends = connections(protocol, address, port, count)
    by_number = {end.fileno(): end for end in ends}
    watched = select.epoll()
    for end in ends:
        watched.register(end, select.EPOLLIN)
    print("ready", flush=True)
    for _ in range(BATCHES if how == "waits" else 1):
        ready = all_at_once(watched, count)
        for number, _ in ready:
            by_number[number].recv(100)
        if how != "waits":
            ends[0].send(ANSWER)
            go_on(how, flag)
            return
        for number, _ in ready:
            by_number[number].send(ANSWER)


def ask(protocol, address, port, count, how, flag):
    ends = []
    for i in range(count):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        ends.append(socket.socket(family(address), kind))
        ends[-1].settimeout(5)
        ends[-1].connect((address, port + (0 if protocol == "tcp" else i)))
    if protocol == "udp":
        for end in ends:
            end.send(b"hello")
            end.recv(100)
    time.sleep(0.2)  # what follows the opening has been sent
    for _ in range(BATCHES if how == "waits" else 1):
        for end in ends:
            end.send(REQUEST)
        for end in ends if how == "waits" else ends[:1]:
            if end.recv(100) != ANSWER:
                sys.exit("no answer")
    flag[0] = 1
    print("answered")


def main():
    what, protocol, address, port, count, how, path = sys.argv[1:]
    (serve if what == "serve" else ask)(protocol, address, int(port), int(count), how, flag_of(path))


main()
