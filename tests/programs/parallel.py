# SPDX-License-Identifier: BSD-2-Clause
"""Python's multiprocessing over TCP: parallel.py manage PORT | work PORT METHOD PROCESSES.

manage serves a dictionary and a queue (a thread for each connection). work starts processes, by fork or by spawn, which all
take from the queue, put their results into the dictionary, and tell their parent over a connection of their own; it prints
a digest of all results."""
import hashlib
import multiprocessing
import queue
import sys
from multiprocessing.connection import Client, Listener
from multiprocessing.managers import BaseManager, DictProxy

KEY = b"not secret"
TASKS = 60


class Manager(BaseManager):
    pass


def manage(port):
    tasks, results = queue.Queue(), {}
    for i in range(TASKS):
        tasks.put(i)
    Manager.register("tasks", callable=lambda: tasks)
    Manager.register("results", callable=lambda: results, proxytype=DictProxy)
    Manager(("127.0.0.1", port), KEY).get_server().serve_forever()


def joined(port):
    Manager.register("tasks")
    Manager.register("results", proxytype=DictProxy)
    manager = Manager(("127.0.0.1", port), KEY)
    manager.connect()
    return manager


def worker(port, address):
    manager = joined(port)
    tasks, results, done = manager.tasks(), manager.results(), 0
    with Client(address, authkey=KEY) as parent:
        while True:
            try:
                task = tasks.get_nowait()
            except queue.Empty:
                break
            data = bytes([task]) * (task * 1999)
            parent.send_bytes(data)
            results.update({task: hashlib.sha256(parent.recv_bytes()).hexdigest()})
            done += 1
        parent.send_bytes(b"end")


def answer(connection):
    """Send back what comes, until the end. In a process of its own: the connection is inherited, or was passed on."""
    while (data := connection.recv_bytes()) != b"end":
        connection.send_bytes(data)


def work(port, method, processes):
    context = multiprocessing.get_context(method)
    with Listener(("127.0.0.1", 0), authkey=KEY) as listener:
        started = [context.Process(target=worker, args=(port, listener.address)) for _ in range(processes)]
        for process in started:
            process.start()
        answering = [multiprocessing.get_context("fork").Process(target=answer, args=(listener.accept(),)) for _ in started]
        for process in answering:
            process.start()
        for process in started + answering:
            process.join()
            assert process.exitcode == 0, process
    results = joined(port).results().copy()
    print(len(results), hashlib.sha256(str(sorted(results.items())).encode()).hexdigest())


if __name__ == "__main__":
    if sys.argv[1] == "manage":
        manage(int(sys.argv[2]))
    else:
        work(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
