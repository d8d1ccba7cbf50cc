# SPDX-License-Identifier: BSD-2-Clause
"""DNS: Unbound with two threads, and dnsmasq, which asks it; dig over UDP and over TCP."""
import harness
from harness import HOST, both, case, check, need

NAMES = 120

UNBOUND = """
server:
  interface: {host}
  port: {port}
  num-threads: 2
  so-reuseport: {reuseport}
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  access-control: 127.0.0.0/8 allow
  local-zone: "test." static
{records}
remote-control:
  control-enable: no
"""


def unbound(test, reuseport):
    need("unbound", "dig")
    port = test.port()
    records = [f'  local-data: "host-{i}.test. 60 IN A 192.0.2.{i}"' for i in range(NAMES)]
    records += [f'  local-data: "large.test. 60 IN TXT \'{chr(97 + i) * 250}\'"' for i in range(12)]
    with open(test.path("unbound.conf"), "w", encoding="ascii") as conf:
        conf.write(UNBOUND.format(host=HOST, port=port, records="\n".join(records), reuseport=reuseport))
    test.start(["unbound", "-d", "-c", test.path("unbound.conf")], port, udp=True)
    return port


def dnsmasq(test, upstream):
    need("dnsmasq")
    port = test.port()
    test.start(["dnsmasq", "-d", "-C", "/dev/null", "-u", "root", "--no-resolv", "--no-hosts", "--pid-file=", f"--port={port}",
                f"--listen-address={HOST}", "--bind-interfaces", f"--server={HOST}#{upstream}", "--cache-size=100",
                "--host-record=own.test,198.51.100.1"], port, udp=True)
    return port


def dig(test, port, *options):
    """All names in one go, and one that is too large for a datagram: dig then asks again by TCP."""
    with open(test.path("names"), "w", encoding="ascii") as names:
        names.writelines(f"host-{i}.test\n" for i in range(NAMES))
    command = ["dig", "-p", port, f"@{HOST}", "+short", "+tries=1", "+time=5", *options]
    with test.carried():
        many = test.run(command + ["-f", test.path("names")])
        large = sorted(test.run(command + ["large.test", "TXT"]).splitlines())
        none = test.run(command + ["nobody.test"])
    check(many.split() == [f"192.0.2.{i}" for i in range(NAMES)] and len(large) == 12, "answers are wrong")
    return large, none


@case
def unbound_answers():
    both(lambda test: [dig(test, unbound(test, "no"), *how) for how in ((), ("+tcp",), ("+tcp", "+keepopen"))])


@case
def unbound_with_a_socket_for_each_thread_answers():
    both(lambda test: dig(test, unbound(test, "yes")))


@case
def dnsmasq_asks_unbound():
    def steps(test):
        port = dnsmasq(test, unbound(test, "no"))
        own = test.run(["dig", "-p", port, f"@{HOST}", "+short", "own.test"])
        return own, [dig(test, port, *how) for how in ((), ("+tcp",))]
    both(steps)


if __name__ == "__main__":
    harness.main()
