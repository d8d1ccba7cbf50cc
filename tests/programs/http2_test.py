# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 over TLS: nginx with curl, and with h2load, which has many streams in each connection."""
import hashlib
import os
import re

import harness
from harness import HOST, both, case, check, need
from web import SIZES, files

NGINX = """
daemon off; worker_processes 2; pid {dir}/nginx.pid; error_log stderr warn; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; default_type application/octet-stream; keepalive_requests 1000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {host}:{port} ssl http2; root {dir}/www; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key; }}
}}
"""


def server(test):
    need("nginx", "openssl", "curl")
    port = test.port()
    files(test)
    test.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
              "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", test.path("key"), "-out", test.path("cert")],
             plain=True)
    with open(test.path("nginx.conf"), "w", encoding="ascii") as conf:
        conf.write(NGINX.format(dir=test.directory, host=HOST, port=port))
    test.start(["nginx", "-c", test.path("nginx.conf"), "-e", "stderr", "-p", test.directory], port)
    return port


@case
def curl_fetches_all_files_at_once():
    """Over one connection, as streams beside each other."""
    def steps(test):
        port = server(test)
        wanted = [part for name in SIZES for part in ("-o", test.path("got-" + name), f"https://{HOST}:{port}/{name}")]
        with test.carried():
            codes = test.run(["curl", "-sS", "--http2", "-Z", "--cacert", test.path("cert"), "-w", "%{http_version} %{http_code}\n",
                              *wanted])
        digests = []
        for name in SIZES:
            got = test.path("got-" + name)
            with open(got if os.path.exists(got) else "/dev/null", "rb") as data:
                digests.append(hashlib.sha256(data.read()).hexdigest())
        return codes, digests
    check(both(steps)[0] == "2 200\n" * len(SIZES), "not by HTTP/2, or not all")


@case
def h2load_has_many_streams():
    def steps(test):
        need("h2load")
        port = server(test)
        with test.carried():
            out = test.run(["h2load", "-n", "2000", "-c", "8", "-m", "10", "-t", "2", f"https://{HOST}:{port}/page"])
        return re.findall(r"(?m)^(?:requests|status codes): .*", out)
    check("2000 succeeded" in both(steps)[0], "requests failed")


if __name__ == "__main__":
    harness.main()
