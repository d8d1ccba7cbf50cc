#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# dump: what is written is what went over the wire, as tcpdump reads it; filters, limits, and what is refused.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

check "dump --help" 0 '^Usage: viaduct dump' "$viaduct" dump --help
check "dump: a wrong filter, with libpcap's words" 2 'filter "tcp prt 1": .*pcap-filter' "$viaduct" dump -w "$work/x" tcp prt 1
check "dump: no such process" 1 'No such file or directory' "$viaduct" dump -w "$work/x" --pid 999999999
check "dump: an unknown option" 2 'help dump' "$viaduct" dump --all
check "dump: a number that is none" 2 'no number' "$viaduct" dump -c many
check "dump: a file that can't be made" 1 "can't write $work/no/such" "$viaduct" dump -w "$work/no/such"
check "dump: not to the terminal" 2 'not for the terminal' script -qec "$viaduct dump" /dev/null

cat >"$work/pair.py" <<'PY'
import os, socket, sys, time
role, directory = sys.argv[1:]
path = os.path.join(directory, "port")
if role == "server":
    listener = socket.create_server(("127.0.0.1", 0))
    with open(path + ".new", "w") as f:
        f.write(str(listener.getsockname()[1]))
    os.rename(path + ".new", path)
    c, _ = listener.accept()
    while data := c.recv(65536):
        c.sendall(data)
else:
    with open(path) as f:
        c = socket.create_connection(("127.0.0.1", int(f.read())))
    open(os.path.join(directory, "connected"), "w").close()
    while not os.path.exists(os.path.join(directory, "go")):
        time.sleep(0.01)
    for i in range(50):
        c.sendall(b"frame %04d" % i)
        assert len(c.recv(100)) == 10
    open(os.path.join(directory, "done"), "w").close()
    time.sleep(300)
PY
# A server and its client, $server and $client, which wait for $work/go.
start_pair() {
	rm -f "$work/go" "$work/done" "$work/connected" "$work/port"
	"$viaduct" run python3 "$work/pair.py" server "$work" &
	server=$!
	started+=("$server")
	await test -e "$work/port"
	"$viaduct" run python3 "$work/pair.py" client "$work" &
	client=$!
	started+=("$client")
	await test -e "$work/connected"
}
start_pair

# start_dump NAME ARGUMENT...: its output is $work/NAME; it captures when this returns
start_dump() {
	local name=$1
	shift
	"$viaduct" dump -w "$work/$name" "$@" 2>"$work/$name.err" &
	dump=$!
	started+=("$dump")
	await grep -q capturing "$work/$name.err"
}
stop_dump() {
	kill -INT "$dump" 2>/dev/null
	wait "$dump"
}

start_dump all --pid "$server"
"$viaduct" dump -w "$work/second" --pid "$server" 2>"$work/second.err" &
second=$!
started+=("$second")
await grep -q "captures the stack of process $server already" "$work/second.err"
result $? "dump: a second capture leaves the stack out, and says so"
kill -INT "$second"
wait "$second"
: >"$work/go"
await test -e "$work/done"
stop_dump
result $? "dump: SIGINT ends it"
grep -Eq '^[0-9]+ frames written, 0 lost$' "$work/all.err"
result $? "dump: how many frames were written and lost"
tcpdump -K -n -A -r "$work/all" >"$work/all.txt" 2>"$work/tcpdump.err"
result $? "dump: tcpdump reads it"
[ "$(grep -c 'frame 0007' "$work/all.txt")" = 2 ] && [ "$(grep -Eo 'frame 00[0-9]{2}' "$work/all.txt" | sort -u | wc -l)" = 50 ]
result $? "dump: every byte both ways, once"

python3 - "$work/all" "$server" "$client" <<'PY'
import struct, sys
path, server, client = sys.argv[1:]
with open(path, "rb") as f:
    data = f.read()
at, blocks = 0, []
while at < len(data):
    kind, size = struct.unpack_from("<II", data, at)
    assert size % 4 == 0 and struct.unpack_from("<I", data, at + size - 4)[0] == size
    blocks.append((kind, data[at + 8:at + size - 4]))
    at += size
def options(body, skip):
    found = {}
    while skip < len(body):
        code, size = struct.unpack_from("<HH", body, skip)
        if not code:
            break
        found[code] = body[skip + 4:skip + 4 + size]
        skip += 4 + (size + 3 & ~3)
    return found
assert blocks[0][0] == 0x0a0d0d0a
interfaces = [options(body, 8) for kind, body in blocks if kind == 1]
assert len(interfaces) == 1, interfaces
comment = interfaces[0][1].decode()
assert f"(process {server})" in comment and f"to python3 ({client})" in comment, comment
ways = set()
for kind, body in blocks:
    if kind == 6:
        caplen, = struct.unpack_from("<I", body, 12)
        ways.add(struct.unpack("<I", options(body, 20 + (caplen + 3 & ~3))[2])[0])
assert ways == {1, 2}, ways
statistics = [options(body, 12) for kind, body in blocks if kind == 5]
assert len(statistics) == 1
assert struct.unpack("<Q", statistics[0][4])[0] == sum(kind == 6 for kind, _ in blocks)
PY
result $? "dump: pcapng with the stack, its process and peer, directions and statistics"

rm -f "$work/go" "$work/done" "$work/connected" "$work/port"
"$viaduct" run python3 "$work/pair.py" server "$work" &
started+=("$!")
await test -e "$work/port"
"$viaduct" run python3 "$work/pair.py" client "$work" &
started+=("$!")
await test -e "$work/connected"
port=$(cat "$work/port")
start_dump few -c 3 -s 60 --pcap "dst port $port and greater 60"
: >"$work/go"
await test -e "$work/done"
wait "$dump"
lines=$(tcpdump -K -n -r "$work/few" 2>/dev/null | grep -c "127.0.0.1.$port: Flags")
[ "$lines" = 3 ]
result $? "dump: -c, -s, --pcap and a filter"
kill "$server" "$client"

rm -f "$work/go" "$work/done" "$work/connected" "$work/port"
"$viaduct" run python3 "$work/pair.py" server "$work" &
started+=("$!")
await test -e "$work/port"
"$viaduct" run python3 "$work/pair.py" client "$work" &
started+=("$!")
await test -e "$work/connected"
{
	"$viaduct" dump 2>"$work/pipe.err"
	echo $? >"$work/pipe.status"
} | tcpdump -K -n -A -c 20 -r - >"$work/pipe.txt" 2>/dev/null &
pipe=$!
await grep -q capturing "$work/pipe.err"
: >"$work/go"
await test -s "$work/pipe.status"
[ "$(cat "$work/pipe.status")" = 0 ] && wait "$pipe" && grep -q 'frame 0001' "$work/pipe.txt"
result $? "dump: into tcpdump as frames come, which may stop first"

start_pair
start_dump named --comments --pid "$server"
: >"$work/go"
await test -e "$work/done"
stop_dump
frames=$(grep -Eo '^[0-9]+ frames' "$work/named.err" | grep -Eo '[0-9]+')
# one for each frame, and the interface's
[ "${frames:-0}" -ge 100 ] && [ "$(grep -ao "stack of python3 (process $server), vNIC 0" "$work/named" | wc -l)" = $((frames + 1)) ] &&
	tcpdump -K -n -r "$work/named" >/dev/null 2>&1
result $? "dump: --comments says with each frame whose it is"
kill "$server" "$client"

"$viaduct" run python3 -c 'import socket, time; s = socket.create_server(("127.0.0.1", 0)); time.sleep(300)' &
idle=$!
started+=("$idle")
await "$viaduct" stat "$idle"
start_dump killed --pid "$idle"
kill -KILL "$dump"
wait "$dump" 2>/dev/null
start_dump after --pid "$idle"
stop_dump
! grep -q already "$work/after.err" && grep -q capturing "$work/after.err"
result $? "dump: a tool that was killed is not in the way of the next"

{
	"$viaduct" dump --pid "$idle" 2>"$work/reader.err"
	echo $? >"$work/reader.status"
} | head -c 100 >/dev/null &
await test -s "$work/reader.status"
[ "$(cat "$work/reader.status")" = 0 ]
result $? "dump: ends when its reader has gone, though no frame comes"
kill "$idle"

# Over an interface: what tcpdump sees at the plain end of a veth is what the stack sent and received.
if [ "$(id -u)" = 0 ] && [ -n "${TEST_CONTAINED:-}" ] && [ -x "$build/viaductd" ]; then
	unshare --net sleep 300 &
	other=$!
	started+=("$other")
	await has_left "$other"
	there=(nsenter -t "$other" -n)
	ip link add dump0 type veth peer name dump1 netns "$other"
	ip address add 198.18.9.1/24 dev dump0 && ip link set dump0 up
	"${there[@]}" ip address add 198.18.9.2/24 dev dump1 && "${there[@]}" ip link set dump1 up
	rm -f "$work/port"
	sed 's/127.0.0.1/198.18.9.1/' "$work/pair.py" >"$work/far.py"
	rm -f "$work/go" "$work/done" "$work/connected"
	# of our own, to end it here: one that viaduct run starts outlives the server, to finish its connections
	"$build/viaductd" &
	daemon=$!
	started+=("$daemon")
	await grep -q ' 00010000 .*@viaduct1/daemon' /proc/net/unix # it listens
	"$viaduct" run python3 "$work/far.py" server "$work" &
	server=$!
	started+=("$server")
	await test -e "$work/port"
	"${there[@]}" tcpdump --immediate-mode -s 256 -U -i dump1 -w "$work/peer.pcap" tcp 2>/dev/null &
	peer=$!
	started+=("$peer")
	await test -s "$work/peer.pcap"
	start_dump far --pid "$server" tcp
	"${there[@]}" python3 "$work/far.py" client "$work" &
	client=$!
	started+=("$client")
	await test -e "$work/connected"
	: >"$work/go"
	await test -e "$work/done"
	# shellcheck disable=SC2317 # await calls it
	same_frames() {
		tcpdump -K -n -t -r "$work/far" 2>/dev/null | sort >"$work/far.txt"
		tcpdump -K -n -t -r "$work/peer.pcap" 2>/dev/null | sort >"$work/peer.txt"
		[ "$(wc -l <"$work/far.txt")" -gt 100 ] && diff "$work/far.txt" "$work/peer.txt"
	}
	await same_frames || same_frames | head -n 20
	same_frames >/dev/null
	result $? "dump: over an interface the same frames as tcpdump at the other end"
	stop_dump
	kill "$peer" "$server" "$client" "$other" "$daemon"
	wait "$daemon"
fi
finish
