# SPDX-License-Identifier: BSD-2-Clause
"""PostgreSQL: the postmaster accepts, a forked backend serves. pgbench, copies of tables, reload, a crash, a fast stop."""
import glob
import hashlib
import os
import re
import signal
import subprocess

import harness
import machine
from harness import HOST, both, case, check, need, wait_until
from users import as_nobody, made_once

CONF = """
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
fsync = off
max_connections = 40
restart_after_crash = on
"""


def program(name):
    """Of the newest version that Debian has installed."""
    need("setpriv")
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    if not found:
        raise harness.Skip(f"{name} is not installed")
    return found[-1]


def cluster(test):
    return made_once(test, "cluster", lambda data: [
        program("initdb"), "-D", data, "-U", "test", "-A", "trust", "-N", "--locale", "C"])


def server(test):
    data, port = cluster(test), test.port()
    with open(data + "/postgresql.conf", "a", encoding="ascii") as conf:
        conf.write(CONF.format(host=HOST, port=port))
    return test.start(as_nobody(test, program("postgres"), "-D", data), port), port


def to(port):
    return ["-h", HOST, "-p", port, "-U", "test"]


def sql(test, port, *statements):
    """What psql prints."""
    commands = [part for statement in statements for part in ("-c", statement)]
    return test.run([program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *to(port), "postgres", *commands])


def ready(port):
    """It listens before it lets anyone in."""
    command = [str(part) for part in (program("pg_isready"), "-q", "-h", HOST, "-p", port)]
    wait_until(lambda: subprocess.run(command, check=False, timeout=10).returncode == 0, 20, "the server is not ready")


def bench(test, port, *options):
    out = test.run([program("pgbench"), *to(port), *options, "postgres"])
    return re.findall(r"(?m)^number of (?:transactions actually processed|failed transactions): \S+", out)


@case
def pgbench_moves_money_and_none_is_lost():
    """Eight clients, a transaction of seven statements each time; afterwards the sums of all tables agree."""
    def steps(test):
        _, port = server(test)
        ready(port)
        with test.carried():
            bench(test, port, "-i", "-q")
            done = bench(test, port, "-c", "8", "-j", "2", "-t", "20")
            sums = sql(test, port, "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), "
                       "(select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers), "
                       "(select count(*) from pgbench_history)")
        return done, sums
    done, sums = both(steps)
    check(sums.strip() == "t|t|160" and done[0].endswith("160/160"), f"{done} {sums}")


@case
def pgbench_connects_for_each_transaction():
    """A backend forked for each."""
    def steps(test):
        _, port = server(test)
        ready(port)
        with test.carried():
            bench(test, port, "-i", "-q")
            return bench(test, port, "-S", "-C", "-c", "4", "-j", "2", "-t", "15")
    check(both(steps)[0].endswith("60/60"), "not all transactions were made")


@case
def tables_are_copied_in_and_out():
    def steps(test):
        _, port = server(test)
        ready(port)
        with test.carried():
            sql(test, port, "create table t (n int primary key, v text)",
                "insert into t select i, repeat(md5(i::text), i % 200) from generate_series(1, 3000) i")
            out = test.path("out")
            sql(test, port, f"\\copy t to '{out}'")
            sql(test, port, "create table u (n int, v text)")
            sql(test, port, f"\\copy u from '{out}'")
            answer = sql(test, port, "select count(*), sum(length(u.v)) from t join u using (n, v)", "select repeat('x', 5000000)")
        with open(out, "rb") as copied:
            return hashlib.sha256(copied.read()).hexdigest(), answer[:40], len(answer)
    both(steps)


@case
def a_backend_that_is_killed_ends_all_and_the_server_recovers():
    """The postmaster ends the other backends, too, and begins anew; a waiting client is told so."""
    def steps(test):
        _, port = server(test)
        ready(port)
        with test.carried():
            waiting = test.start([program("psql"), "-XAtq", *to(port), "postgres", "-c", "select 'here'", "-c", "select pg_sleep(60)"])
            victim = test.start([program("psql"), "-XAtq", *to(port), "postgres", "-c", "select pg_backend_pid()", "-c", "select pg_sleep(60)"])
            wait_until(lambda: "here" in waiting.whole_output() and victim.whole_output().strip().isdigit(), 10, "the clients wait for nothing")
            os.kill(int(victim.whole_output()), signal.SIGKILL)
            codes = [client.process.wait(10) for client in (waiting, victim)]
        ready(port)  # asked again and again by a plain program, of the kernel
        with test.carried():
            answer = sql(test, port, "select 40 + 2")
        return codes, re.sub(r"\d+", "N", victim.whole_output()), re.sub(r"\d+", "N", waiting.whole_output()), answer
    both(steps)


@case
def a_reload_changes_settings_and_a_fast_stop_ends_clients():
    def steps(test):
        postmaster, port = server(test)
        ready(port)
        with test.carried():
            sql(test, port, "alter system set work_mem = '7MB'")
            before = sql(test, port, "show work_mem")
            postmaster.process.send_signal(signal.SIGHUP)
            wait_until(lambda: sql(test, port, "show work_mem") != before, 10, "the reload had no effect")
            after = sql(test, port, "show work_mem")
            client = test.start([program("psql"), "-XAtq", *to(port), "postgres", "-c", "select 'here'", "-c", "select pg_sleep(60)"])
            wait_until(lambda: "here" in client.whole_output(), 10, "the client waits for nothing")
        postmaster.process.send_signal(signal.SIGINT)
        return before, after, client.process.wait(10), client.whole_output(), postmaster.process.wait(10)
    both(steps)


if __name__ == "__main__":
    harness.main()
