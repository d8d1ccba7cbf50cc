# SPDX-License-Identifier: BSD-2-Clause
"""Web servers: nginx with curl and wrk, python's http.server and asyncio."""
import hashlib
import os
import random
import re
import sys

import harness
from harness import HOST, both, case, check, need

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-B"]
SIZES = {"empty": 0, "one": 1, "page": 4096, "odd": 65537, "large": 5 << 20}

NGINX = """
daemon off; worker_processes {workers}; pid {dir}/nginx.pid; error_log stderr warn; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile {sendfile}; default_type application/octet-stream; keepalive_requests 1000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {host}:{port}; root {dir}/www; location /proxied/ {{ proxy_pass http://{host}:{port}/; }} }}
}}
"""


def files(test):
    os.makedirs(test.path("www"), exist_ok=True)
    for name, size in SIZES.items():
        with open(test.path("www/" + name), "wb") as out:
            out.write(random.Random(size).randbytes(size))


def nginx(test, workers=1, sendfile="on"):
    need("nginx", "curl")
    port = test.port()
    files(test)
    with open(test.path("nginx.conf"), "w", encoding="ascii") as conf:
        conf.write(NGINX.format(dir=test.directory, host=HOST, port=port, workers=workers, sendfile=sendfile))
    test.start(["nginx", "-c", test.path("nginx.conf"), "-e", "stderr", "-p", test.directory], port)
    return port


def fetch(test, port, prefix=""):
    """Digest and status of each file, by curl in one go over one connection, headers without dates."""
    found = []
    with test.carried():
        for name in SIZES:
            headers = test.run(["curl", "-sS", "-D", "-", "-o", test.path("got"), f"http://{HOST}:{port}/{prefix}{name}"])
            with open(test.path("got"), "rb") as got:
                data = got.read()
            check(data == random.Random(SIZES[name]).randbytes(SIZES[name]), f"{name} differs")
            found.append((name, hashlib.sha256(data).hexdigest(),
                          re.sub(r"(?m)^(Date|Last-Modified|ETag):.*\n", "", headers)))
    return found


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


def wrk(test, *options):
    need("wrk")
    port = nginx(test)
    with test.carried():
        out = test.run(["wrk", "-t", "2", "-c", "40", "-d", "1", *options, f"http://{HOST}:{port}/page"])
    check(float(re.search(r"Requests/sec:\s+([0-9.]+)", out).group(1)) > 10, out)
    return "Socket errors" in out, "Non-2xx" in out


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
