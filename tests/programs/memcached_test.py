# SPDX-License-Identifier: BSD-2-Clause
"""memcached with four threads: its protocol's own test, and loads whose clients compare what they stored."""
import re

import harness
from harness import HOST, both, case, check, need


def server(test):
    need("memcached", "memccapable", "memcslap", "memcaslap")
    port = test.port()
    test.start(["memcached", "-u", "root", "-l", HOST, "-p", port, "-U", port, "-t", "4", "-m", "256"], port)
    return port


@case
def memcached_speaks_its_protocol():
    """memccapable names each command, and whether it did what the protocol says."""
    def steps(test):
        port = server(test)
        with test.carried():
            return test.run(["memccapable", "-a", "-h", HOST, "-p", port, "-t", "10"])
    check("All tests passed" in both(steps), "a command failed")


@case
def memcslap_stores_and_finds():
    def steps(test):
        port, found = server(test), []
        for what in ("set", "get", "mget"):
            with test.carried():
                out = test.run(["memcslap", "-s", f"{HOST}:{port}", "-c", "8", "-e", "500", "-t", what])
            found += re.findall(rf"Time to {what}\s+(\d+) keys by\s+(\d+) threads", out)
        return found
    check(both(steps) == [("4000", "8")] * 3, "not all keys came")


def memcaslap(test, *options):
    port = server(test)
    with test.carried():
        out = test.run(["memcaslap", "-s", f"{HOST}:{port}", "-T", "2", "-c", "32", "-x", "6400", "-v", "1", *options])
    return re.findall(r"(?m)^(cmd_get|cmd_set|get_misses|verify_misses|verify_failed|packet_disorder|packet_drop): (\d+)", out)


@case
def memcaslap_reads_what_it_wrote():
    """Each value is compared. 32 connections of two threads, spread over the server's four."""
    check(dict(both(memcaslap)) == {"cmd_get": "5760", "cmd_set": "640", "get_misses": "0", "verify_misses": "0",
                                    "verify_failed": "0"}, "values are missing or wrong")


@case
def memcaslap_reads_it_over_datagrams():
    check(("verify_failed", "0") in both(lambda test: memcaslap(test, "-U")), "values are wrong")


if __name__ == "__main__":
    harness.main()
