# SPDX-License-Identifier: BSD-2-Clause
"""MariaDB: a thread for each connection, or a pool of them; many clients at once, large answers, a clean stop."""
import hashlib
import re

import harness
from harness import HOST, both, case, check, need
from users import as_nobody, made_once


def data_directory(test):
    return made_once(test, "mariadb", lambda data: [
        "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
        "--auth-root-authentication-method=normal", "--innodb-flush-method=fsync"])


def server(test, *options):
    need("mariadbd", "mariadb", "mariadb-install-db", "setpriv")
    data, port = data_directory(test), test.port()
    program = test.start(as_nobody(test, "mariadbd", "--no-defaults", f"--datadir={data}", f"--bind-address={HOST}",
                                   f"--port={port}", "--socket=", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
                                   *options), port)
    sql(test, port, "create user u; grant all on *.* to u; create database d", user="root")
    return program, port


def sql(test, port, statements, user="u"):
    return test.run(["mariadb", "--no-defaults", "-h", HOST, "-P", port, "-u", user, "-N", "-B", "--protocol=tcp", "-e", statements])


def many_clients(test, *options):
    """Six at a time, eighteen in all: each adds rows in a transaction and reads its own again."""
    program, port = server(test, *options)
    with test.carried():
        sql(test, port, "create table d.t (c int, n int, v text, primary key (c, n))")
        with open(test.path("client"), "w", encoding="ascii") as script:
            script.write(f"exec mariadb --no-defaults -h {HOST} -P {port} -u u -N -B --protocol=tcp d -e \"start transaction; "
                         "insert into t select $1, seq, repeat(md5(seq + $1), 9) from seq_1_to_50; commit; "
                         "select count(*), sum(crc32(v)) from t where c = $1\"\n")
        out = test.run(["sh", "-c", f"seq 18 | xargs -P 6 -I N sh {test.path('client')} N"])
        total = sql(test, port, "select count(*), sum(crc32(v)) from d.t; select repeat('x', 3000000)")
    program.process.terminate()
    return sorted(out.splitlines()), hashlib.sha256(total.encode()).hexdigest(), program.process.wait(20)


@case
def mariadb_has_a_thread_for_each_client():
    answers, _, code = both(many_clients)
    check(len(answers) == 18 and all(re.match(r"50\t\d+$", line) for line in answers) and code == 0, f"{answers} {code}")


@case
def mariadb_has_a_pool_of_threads():
    both(lambda test: many_clients(test, "--thread-handling=pool-of-threads", "--thread-pool-size=2"))


if __name__ == "__main__":
    harness.main()
