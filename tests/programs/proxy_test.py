# SPDX-License-Identifier: BSD-2-Clause
"""Caches before nginx: Varnish, whose parent and worker talk to each other, and Squid, with its helpers."""
import os

import harness
from harness import HOST, both, case, check, need
from users import nobodys_directory
from web import SIZES, fetch, loads, nginx

VCL = """
vcl 4.1;
backend default {{ .host = "{host}"; .port = "{port}"; }}
sub vcl_deliver {{ unset resp.http.x-varnish; unset resp.http.age; unset resp.http.via; }}
"""

SQUID = """
http_port {host}:{port}
acl here src {host}
http_access allow here
cache_mem 32 MB
maximum_object_size_in_memory 8 MB
cache_effective_user nobody
pid_filename none
access_log none
cache_log stdio:/dev/stderr
coredump_dir {dir}
pinger_enable off
shutdown_lifetime 1 seconds
visible_hostname test
"""


@case
def varnish_caches():
    def steps(test):
        need("varnishd", "curl")
        backend, port = nginx(test), test.port()
        with open(test.path("test.vcl"), "w", encoding="ascii") as vcl:
            vcl.write(VCL.format(host=HOST, port=backend))
        test.start(["varnishd", "-F", "-a", f"{HOST}:{port}", "-f", test.path("test.vcl"), "-s", "malloc,64m", "-n", test.path("v"),
                    "-T", "none", "-j", "none"], port)
        return fetch(test, port), fetch(test, port), loads(test, port)
    check(both(steps)[2] == [([], []), ([], [])], "requests failed")


@case
def squid_caches():
    def steps(test):
        need("squid", "curl")
        nobodys_directory(test, "nobodys")  # or skip: it would not start without that user
        backend, port = nginx(test), test.port()
        with open(test.path("squid.conf"), "w", encoding="ascii") as conf:
            conf.write(SQUID.format(host=HOST, port=port, dir=test.directory))
        test.start(["squid", "-N", "-f", test.path("squid.conf")], port)
        got, found = test.path("got"), []
        with test.carried():
            for name in list(SIZES) * 2:
                code = test.run(["curl", "-sS", "-x", f"http://{HOST}:{port}", "-w", "%{http_code} %header{x-cache}", "-o", got,
                                 f"http://{HOST}:{backend}/{name}"])
                found.append((code, os.path.getsize(got)))
        return found
    both(steps)


if __name__ == "__main__":
    harness.main()
