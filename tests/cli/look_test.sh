#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# stat and explain: on programs that are not accelerated, on a live pair, and on a stack that lies.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

sleep 300 &
plain=$!
started+=("$plain")

check "explain: a process that does not run under viaduct" 1 'does not run under viaduct.*viaduct run sleep' "$viaduct" explain $plain
check "stat: a process that does not run under viaduct" 1 'does not run under viaduct' "$viaduct" stat $plain
check "explain: no such process" 1 'no process 999999999' "$viaduct" explain 999999999
check "stat: no such process" 1 'no process 999999999' "$viaduct" stat 999999999
check "explain: not a number" 2 'one process id' "$viaduct" explain abc
check "explain: nothing" 2 'one process id' "$viaduct" explain
check "explain: two" 2 'one process id' "$viaduct" explain 1 2
check "stat: not a number" 2 'not a process id' "$viaduct" stat abc
check "stat: an unknown option" 2 'help stat' "$viaduct" stat --all

"$viaduct" run sleep 300 &
idle=$!
started+=("$idle")
await grep -q libviaduct /proc/$idle/maps
check "explain: accelerated, no sockets" 0 'no sockets' "$viaduct" explain $idle
check "stat: accelerated, no stack yet" 1 'no TCP or UDP socket yet' "$viaduct" stat $idle

# io_uring: refused where it can be, explained where it is there all the same (here: inherited), where the kernel has it.
ring='import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.syscall(425, 4, ctypes.create_string_buffer(120))
if len(sys.argv) < 2:
    print(os.strerror(ctypes.get_errno()) if fd < 0 else "a ring")
elif fd >= 0:
    os.set_inheritable(fd, True)
    os.execvp(sys.argv[1], sys.argv[1:])'
check "io_uring_setup under viaduct" 0 'Function not implemented' "$viaduct" run python3 -c "$ring"
if [ "$(python3 -c "$ring")" = "a ring" ]; then
	python3 -c "$ring" "$viaduct" run sleep 300 &
	ringed=$!
	started+=("$ringed")
	await grep -q libviaduct /proc/$ringed/maps
	check "explain: an io_uring" 0 'an io_uring.*not accelerated ones' "$viaduct" explain $ringed
fi
# A memfd of the right name that is no stack, and one that claims to be.
python3 - "$work/liar" <<'PY' &
import os, sys, time
bad = os.memfd_create("viaduct:stack")
os.ftruncate(bad, 1 << 22)
os.pwrite(bad, b"VIDATSTK" + b"\x01\0\0\0" + b"\xff" * 4096, 0)
open(sys.argv[1], "w").close()
time.sleep(300)
PY
liar=$!
started+=("$liar")
await test -e "$work/liar"
check "stat: a stack that lies" 1 'not one of this version' "$viaduct" stat $liar
check "explain: a stack that lies" 1 'another version' "$viaduct" explain $liar

cat >"$work/pair.py" <<'PY'
import os, socket, sys, time
role, directory = sys.argv[1:]
path = os.path.join(directory, "port")
if role == "server":
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(5)
    local = socket.socket(socket.AF_UNIX)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with open(path + ".new", "w") as f:
        f.write(str(s.getsockname()[1]))
    os.rename(path + ".new", path)
    kept = []
    while True:
        c, _ = s.accept()
        c.sendall(c.recv(100))
        kept.append(c)
else:
    with open(path) as f:
        c = socket.create_connection(("127.0.0.1", int(f.read())))
    c.sendall(b"x" * 10)
    assert c.recv(100) == b"x" * 10
    if role == "half":
        c.shutdown(socket.SHUT_WR)
    open(os.path.join(directory, role), "w").close()
    time.sleep(300)
PY
"$viaduct" run python3 "$work/pair.py" server "$work" &
server=$!
started+=("$server")
await test -e "$work/port"
"$viaduct" run python3 "$work/pair.py" fast "$work" &
fast=$!
started+=("$fast")
await test -e "$work/fast"
python3 "$work/pair.py" plain "$work" &
started+=("$!")
await test -e "$work/plain"
port=$(cat "$work/port")

check "explain: the listener" 0 "tcp 127.0.0.1:$port: accelerated. It listens" "$viaduct" explain $server
check "explain: an accelerated connection and its peer" 0 "to 127.0.0.1:[0-9]+: accelerated, over vNIC 0 \(local\) with python3.* \($fast\), ESTABLISHED" \
	"$viaduct" explain $server
check "explain: the plain client's connection" 0 "the kernel's. The peer .* does not run under viaduct" "$viaduct" explain $server
check "explain: a Unix socket" 0 "family is neither IPv4 nor IPv6" "$viaduct" explain $server
lines=$("$viaduct" explain $server | wc -l)
[ "$lines" = 5 ]
result $? "explain: a line for each of the program's sockets, none for viaduct's own"
check "explain: the client" 0 "to 127.0.0.1:$port: accelerated, over vNIC" "$viaduct" explain $fast
check "stat: the connection" 0 "tcp +ESTABLISHED +0 +0 +127.0.0.1:$port" "$viaduct" stat $server
check "stat: a counter" 0 '^ +wire_made +1$' "$viaduct" stat $server
check "stat --explain: a sentence" 0 'tcp_passive_opens +1 +[A-Z].*\.$' "$viaduct" stat $server --explain
check "stat without PID finds it" 0 "stack of process $server\)" "$viaduct" stat

"$viaduct" stat $server --json --explain >"$work/stat.json"
python3 - "$work/stat.json" "$port" "$fast" <<'PY'
import json, sys
with open(sys.argv[1]) as f:
    stack = json.load(f)["stacks"][0]
connection = [s for s in stack["sockets"] if s.get("state") == "ESTABLISHED"]
assert len(connection) == 1, connection
assert connection[0]["local"] == "127.0.0.1:" + sys.argv[2]
assert connection[0]["rx_bytes"] == 10 and connection[0]["tx_bytes"] == 10, connection
assert stack["vnics"][connection[0]["vnic"]]["peer_pid"] == int(sys.argv[3])
assert stack["counters"].keys() == stack["counter_sentences"].keys()
PY
result $? "stat --json is JSON and says the same"

"$viaduct" run python3 "$work/pair.py" half "$work" &
half=$!
started+=("$half")
await sh -c '"$1" stat "$2" | grep -q FIN-WAIT-2' - "$viaduct" $half
check "stat: an acknowledged FIN is not in the send queue" 0 "tcp +FIN-WAIT-2 +0 +0 " "$viaduct" stat $half

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	if "${nobody[@]}" test -x "$viaduct"; then
		check "another user may not look" 1 "may not look into process $server" "${nobody[@]}" "$viaduct" explain $server
		check "another user sees no stacks, and why" 1 'belong to others' "${nobody[@]}" "$viaduct" stat
	fi
fi
finish
