# SPDX-License-Identifier: BSD-2-Clause
"""HAProxy with threads, before nginx: HTTP and plain TCP, many connections, a worker or a process that follows another."""
import re

import harness
from harness import HOST, both, case, check, need, wait_until
from web import fetch, loads, nginx

CONF = """
global
  nbthread 2
  hard-stop-after 5s
defaults
  timeout connect 5s
  timeout client 20s
  timeout server 20s
listen http
  mode http
  bind {host}:{http}
  http-response set-header x-round {round}
  server one {host}:{backend}
  server two {host}:{backend}
listen tcp
  mode tcp
  bind {host}:{tcp}
  server one {host}:{backend}
"""


class Proxy:
    """A master with its worker, or one process."""
    def __init__(self, test, master=True):
        need("haproxy", "curl")
        self.test, self.round = test, 0
        self.backend, self.http, self.tcp = backend(test), test.port(), test.port()
        self.command = ["haproxy", "-db", "-f", test.path("haproxy.cfg")] + (["-W"] if master else [])
        self.configure()
        self.program = test.start(self.command, self.http)

    def configure(self):
        with open(self.test.path("haproxy.cfg"), "w", encoding="ascii") as conf:
            conf.write(CONF.format(host=HOST, http=self.http, tcp=self.tcp, backend=self.backend, round=self.round))

    def served_by(self):
        return int(self.test.run(["curl", "-sS", "-o", "/dev/null", "-w", "%header{x-round}", f"http://{HOST}:{self.http}/one"]))

    def wait_for_round(self):
        wait_until(lambda: self.served_by() == self.round, 15, "the new worker does not serve")

    def replace(self):
        """Another process listens, too (SO_REUSEPORT), and tells the old one to end when it has answered."""
        self.round += 1
        self.configure()
        old, self.program = self.program, self.test.start(self.command + ["-sf", self.program.process.pid])
        check(old.process.wait(15) == 0, "the old process failed")
        self.wait_for_round()


def backend(test):
    """nginx, with a worker for each processor."""
    return nginx(test, workers=2)


def answers(test, port):
    """By HTTP's headers, without those that count or name a moment."""
    return [(name, digest, re.sub(r"(?m)^(x-round):.*\n", "", headers)) for name, digest, headers in fetch(test, port)]


@case
def haproxy_passes_files_on():
    def steps(test):
        proxy = Proxy(test)
        return answers(test, proxy.http), answers(test, proxy.tcp)
    both(steps)


@case
def haproxy_has_many_connections():
    def steps(test):
        proxy = Proxy(test)
        return loads(test, proxy.http, proxy.tcp)
    check(both(steps) == [([], [])] * 4, "requests failed")


@case
def haproxy_is_replaced_by_a_new_process():
    def steps(test):
        proxy = Proxy(test, master=False)
        for _ in range(2):
            proxy.replace()
        return answers(test, proxy.http)
    both(steps)


if __name__ == "__main__":
    harness.main()
