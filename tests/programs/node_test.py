# SPDX-License-Identifier: BSD-2-Clause
"""Node.js: an HTTP server, and a client with connections that are kept and with one for each request."""
import os

import harness
from harness import HOST, both, case, check, need

NODE = ["node", os.path.join(os.path.dirname(os.path.abspath(__file__)), "node.js")]


@case
def node_serves_http():
    def steps(test):
        need("node")
        port = test.port()
        test.start(NODE + ["serve", port], port)
        with test.carried():
            return test.run(NODE + ["ask", port, 200])
    check(both(steps) == "200 right\n", "answers are wrong")


if __name__ == "__main__":
    harness.main()
