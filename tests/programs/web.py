# SPDX-License-Identifier: BSD-2-Clause
"""What tests of web servers and proxies share: files, nginx before them, curl and wrk as clients."""
import hashlib
import os
import random
import re
import shutil
import signal
import time

from harness import HOST, check, need

SIZES = {"empty": 0, "one": 1, "page": 4096, "odd": 65537, "large": 5 << 20}

NGINX = """
daemon {daemon}; worker_processes {workers}; pid {dir}/nginx.pid; error_log stderr warn; user root;
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


def nginx_command(test, port, workers, sendfile="on", daemon="off"):
    need("nginx", "curl")
    files(test)
    with open(test.path("nginx.conf"), "w", encoding="ascii") as conf:
        conf.write(NGINX.format(dir=test.directory, host=HOST, port=port, workers=workers, sendfile=sendfile, daemon=daemon))
    return [shutil.which("nginx"), "-c", test.path("nginx.conf"), "-e", "stderr", "-p", test.directory]


def nginx(test, workers=1, sendfile="on"):
    port = test.port()
    test.start(nginx_command(test, port, workers, sendfile), port)
    return port


def daemon_of_nginx(test, workers):
    """Whose parent ends when it listens; its number is in nginx.pid."""
    port = test.port()
    test.finish(test.start(nginx_command(test, port, workers, daemon="on")))
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
                          re.sub(r"(?mi)^(Date|Last-Modified|ETag):.*\n", "", headers)))
    return found


class Load:
    """wrk until it is told to end, unless otherwise said with a connection for each request."""

    def __init__(self, test, port, keep=False):
        need("wrk")
        self.test = test
        how = [] if keep else ["-H", "Connection: close"]
        self.program = test.start(["wrk", "-t", "1", "-c", "6", "-d", "120", *how, f"http://{HOST}:{port}/page"])
        time.sleep(0.4)

    def complaints(self):
        self.program.process.send_signal(signal.SIGINT)
        return wrk_says(self.test.finish(self.program))


def loads(test, *ports):
    """What wrk complains of on each port, with connections that are kept, then with one for each request."""
    with test.carried():
        return [Load(test, port, keep).complaints() for port in ports for keep in (True, False)]


def wrk_says(out):
    """What wrk counted that should not be; that it did something."""
    check(float(re.search(r"Requests/sec:\s+([0-9.]+)", out).group(1)) > 10, out)
    return re.findall(r"(?m)^\s*Socket errors.*", out), re.findall(r"(?m)^\s*Non-2xx.*", out)


def wrk(test, *options):
    need("wrk")
    port = nginx(test)
    with test.carried():
        return wrk_says(test.run(["wrk", "-t", "2", "-c", "40", "-d", "1", *options, f"http://{HOST}:{port}/page"]))
