# SPDX-License-Identifier: BSD-2-Clause
"""GNU parallel: shells side by side, each with a connection of its own, by curl and by Bash's /dev/tcp."""
import harness
from harness import HOST, both, case, check, need
from web import SIZES, nginx

BY_BASH = ("exec 3<>/dev/tcp/{host}/{port}; printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' {{1}} >&3; "
           "sed '1,/^\\r$/d' <&3 | sha256sum")
BY_CURL = "curl -sS http://{host}:{port}/{{1}} | sha256sum"


def shells(test, script, jobs=6, times=8):
    """In the order of the arguments (-k), whichever ended first."""
    need("parallel", "bash", "curl")
    port = nginx(test, workers=2)
    command = ["env", "SHELL=/bin/bash", f"HOME={test.directory}", "parallel", "--will-cite", "-k", "-j", jobs,
               script.format(host=HOST, port=port), ":::", *SIZES, ":::", *range(times)]
    with test.carried():
        return test.run(command).splitlines()


def check_shells(script):
    lines = both(lambda test: shells(test, script))
    check(len(lines) == 8 * len(SIZES) and len(set(lines)) == len(SIZES), f"answers are wrong: {lines}")


@case
def shells_fetch_with_curl():
    check_shells(BY_CURL)


@case
def shells_talk_themselves():
    """What Bash redirects to a socket it duplicates, and hands to the programs of a pipe."""
    check_shells(BY_BASH)


if __name__ == "__main__":
    harness.main()
