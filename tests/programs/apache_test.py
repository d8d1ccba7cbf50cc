# SPDX-License-Identifier: BSD-2-Clause
"""Apache with each of its ways to have many connections: processes (prefork), threads (worker), threads and epoll (event)."""
import os
import signal
import time

import harness
from harness import HOST, both, case, check, need, wait_until
from users import nobodys_directory
from web import Load, fetch, files, loads

MODULES = "/usr/lib/apache2/modules"
CONF = """
ServerRoot {dir}
ServerName test
PidFile {dir}/httpd.pid
ErrorLog /dev/stderr
Listen {host}:{port}
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
StartServers 2
{limits}
MaxRequestWorkers 64
User nobody
Group nogroup
DocumentRoot {dir}/www
KeepAlive On
MaxKeepAliveRequests 0
Mutex file:{dir}
"""
LIMITS = {"prefork": "MinSpareServers 2\nMaxSpareServers 8", "worker": "ThreadsPerChild 16", "event": "ThreadsPerChild 16"}


def server(test, mpm):
    need("apache2", "wrk", "curl")
    if not os.path.exists(f"{MODULES}/mod_mpm_{mpm}.so"):
        raise harness.Skip(f"Apache has no module mpm_{mpm}")
    nobodys_directory(test, "nobodys")  # or skip: it would not start without that user
    port = test.port()
    files(test)
    with open(test.path("httpd.conf"), "w", encoding="ascii") as conf:
        conf.write(CONF.format(dir=test.directory, host=HOST, port=port, mpm=mpm, modules=MODULES, limits=LIMITS[mpm]))
    return test.start(["apache2", "-D", "FOREGROUND", "-f", test.path("httpd.conf")], port), port


def serve(mpm):
    def steps(test):
        _, port = server(test, mpm)
        return fetch(test, port), loads(test, port)
    check(both(steps)[1] == [([], []), ([], [])], "requests failed")


@case
def apache_prefork_serves():
    serve("prefork")


@case
def apache_worker_serves():
    serve("worker")


@case
def apache_event_serves():
    serve("event")


@case
def apache_reloads_and_ends_gracefully():
    """USR1: children end when they have answered, new ones come. WINCH: all end."""
    def steps(test):
        program, port = server(test, "event")
        before = set(harness.children_of(program.process.pid))
        with test.carried():
            load = Load(test, port)
            program.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: not before & set(harness.children_of(program.process.pid)), 15, "the children stay")
            time.sleep(0.2)
            load.complaints()
            found = fetch(test, port)
        program.process.send_signal(signal.SIGWINCH)
        return found, program.process.wait(15)
    both(steps)


if __name__ == "__main__":
    harness.main()
