# SPDX-License-Identifier: BSD-2-Clause
"""Web servers: nginx with curl and wrk, python's http.server and asyncio."""
import os
import sys

import harness
from harness import HOST, both, case
from web import fetch, files, nginx, wrk

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]


@case
def nginx_serves_files():
    both(lambda test: fetch(test, nginx(test)))


@case
def nginx_serves_files_without_sendfile():
    both(lambda test: fetch(test, nginx(test, sendfile="off")))


@case
def nginx_with_two_workers():
    both(lambda test: fetch(test, nginx(test, workers=2)))


@case
def nginx_proxies_to_itself():
    both(lambda test: fetch(test, nginx(test), "proxied/"))


@case
def nginx_ranges_and_errors():
    def steps(test):
        port = nginx(test)
        with test.carried():
            part = test.run(["curl", "-sS", "-r", "1000-99999", f"http://{HOST}:{port}/large", "-o", test.path("part"), "-w",
                             "%{http_code} %{size_download}"])
            lost = test.run(["curl", "-sS", f"http://{HOST}:{port}/nothing", "-o", "/dev/null", "-w", "%{http_code}"])
        return part, lost
    both(steps)


@case
def wrk_keeps_connections():
    both(wrk)


@case
def wrk_opens_a_connection_per_request():
    both(lambda test: wrk(test, "-H", "Connection: close"))


@case
def python_http_server_serves_files():
    def steps(test):
        port = test.port()
        files(test)
        test.start(PYTHON + ["-m", "http.server", "--bind", HOST, "--directory", test.path("www"), port], port)
        return fetch(test, port)
    both(steps)


@case
def python_asyncio_echoes():
    def steps(test):
        port = test.port()
        test.start(PYTHON + [os.path.join(HERE, "echo.py"), "server", port], port)
        with test.carried():
            return test.run(PYTHON + [os.path.join(HERE, "echo.py"), "client", port, "100", "20"])
    both(steps)


if __name__ == "__main__":
    harness.main()
