# SPDX-License-Identifier: BSD-2-Clause
"""nginx with four workers as a daemon: reloads while a client connects for each request."""
import os
import signal
import time

import harness
from harness import both, case, need, wait_until
from web import Load, daemon_of_nginx, fetch

WORKERS = 4


class Daemon:
    """Its master, by its pid file."""

    def __init__(self, test):
        need("nginx")
        self.test, self.pid_file = test, test.path("nginx.pid")
        self.port = daemon_of_nginx(test, workers=WORKERS)

    def pid(self):
        try:
            with open(self.pid_file, encoding="ascii") as text:
                return int(text.read())
        except (OSError, ValueError):
            return 0

    def signal(self, number):
        os.kill(self.pid(), number)

    def workers(self):
        return set(harness.children_of(self.pid()))

    def quit(self):
        """As `nginx -s quit`: it ends when all is answered."""
        pid = self.pid()
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 15, "nginx does not quit")

    def reload(self):
        before = self.workers()
        self.signal(signal.SIGHUP)
        wait_until(lambda: len(self.workers() - before) == WORKERS and not self.workers() & before, 15, "the workers stay")


def after(test, act, times):
    """What curl gets when this was done so often while a client connects for each request."""
    daemon = Daemon(test)
    try:
        with test.carried():
            load = Load(test, daemon.port)
            for _ in range(times):
                act(daemon)
                time.sleep(0.2)
            load.complaints()
            return fetch(test, daemon.port)
    finally:
        daemon.quit()


@case
def nginx_reloads_under_load_and_its_new_workers_serve():
    both(lambda test: after(test, Daemon.reload, 3))


if __name__ == "__main__":
    harness.main()
