#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# check: what it says of interfaces, of viaductd (here one that only says how it is) and of rules, and its exit status.
# Needs root for interfaces; only those in the test's own network namespace are touched.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

# without viaductd beside it: nobody could start one
mkdir "$work/alone" && cp "$viaduct" "$work/alone/"
beside=$viaduct
viaduct=$work/alone/viaduct

check "check --help" 0 '^Usage: viaduct check' "$viaduct" check --help
check "check: an unknown option" 2 'help check' "$viaduct" check --fast
check "check: an argument" 2 'no "eth0"' "$viaduct" check eth0
printf 'kernel port=0\n' >"$work/wrong"
printf 'kernel\naccelerate port=80\n' >"$work/hidden"
check "check: wrong rules are told with line and column" 1 'lack .*wrong:1:13: a port' "$viaduct" check --rules "$work/wrong"
check "check: a rule that never matches is noted" 1 'note .*hidden:2:1: .*line 1' "$viaduct" check --rules "$work/hidden"
check "check: rules that are not there" 1 "lack +can't read $work/none" "$viaduct" check --rules "$work/none"
check "check: the kernel" 1 'ok +Linux [0-9]' "$viaduct" check

# A viaductd that greets, and says of itself what it was told to: allowed, direct.
cat >"$work/daemon.py" <<'PY'
import os, socket, struct, sys
allowed, direct, ready = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("\0viaduct1/daemon")
listener.listen()
open(ready, "w").close()
HELLO, STATUS = 1, 7
while True:
    asker, _ = listener.accept()
    if "MUTE" in os.environ:
        asker.recv(4096)
        continue
    while packet := asker.recv(4096):
        kind, protocol, size, seq, _ = struct.unpack_from("HHIIi", packet)
        body = {HELLO: struct.pack("IIII", 1 << 16 | 2 << 8 | 3, 999, 0, 0),
                STATUS: struct.pack("10I", 0, 4, 1, 17, os.getpid(), os.getuid(), allowed, direct, "NO_RINGS" in os.environ, 0)}[kind]
        asker.send(struct.pack("HHIIi", kind, protocol, 16 + len(body), seq, 0) + body)
PY
# with_daemon ALLOWED DIRECT PREFIX... : starts it; stop_daemon ends it
with_daemon() {
	local allowed=$1 direct=$2
	shift 2
	rm -f "$work/ready"
	"$@" python3 "$work/daemon.py" "$allowed" "$direct" "$work/ready" &
	daemon=$!
	started+=("$daemon")
	await test -e "$work/ready"
}
stop_daemon() {
	kill "$daemon"
	wait "$daemon" 2>/dev/null
}

if [ "$(id -u)" = 0 ] && [ -n "${TEST_CONTAINED:-}" ]; then
	chmod 777 "$work"
	check "check: without interfaces the network path does not work" 1 'lack +there is no interface' "$viaduct" check
	unshare --net sleep 300 &
	other=$!
	started+=("$other")
	await has_left "$other"
	ip link add check0 type veth peer name check1 netns "$other" && ip link set check0 up &&
		nsenter -t "$other" -n ip link set check1 up
	if ip link add link check0 name check0.7 type vlan id 7 2>/dev/null && ip link set check0.7 up; then
		check "check: a VLAN with what it lies on" 1 'ok +check0.7 \(VLAN over check0\): generic XDP' "$viaduct" check
	fi
	await sh -c 'ip link show check0 | grep -q "state UP"' # /sys shows the interfaces of whoever mounted it
	check "check: an interface with its driver's XDP, MTU and queues" 1 \
		'ok +check0: generic XDP \(faster.*, driver veth, MTU 1500, [0-9]+ receive queue' "$viaduct" check
	if [ -x "$build/viaductd" ]; then
		check "check: viaductd can be started" 0 '"viaduct run" will start it' "$beside" check
	fi
	with_daemon 1 1
	check "check: all is there" 0 'The network path will work' "$viaduct" check
	check "check: switched off by a knob" 1 'mend: unset VIADUCT_NETWORK' env VIADUCT_NETWORK=off "$viaduct" check
	check "check: viaductd's version and what it serves" 0 'serves 4 stacks with 17 filters, and finishes 1 dead' "$viaduct" check
	check "check: viaductd of another version" 0 'note +it is of another version' "$viaduct" check
	check "check: wrong rules stand in the way" 1 'lack .*wrong:1:13' "$viaduct" check --rules "$work/wrong"
	"$viaduct" check --json >"$work/check.json"
	python3 - "$work/check.json" <<'PY'
import json, sys
with open(sys.argv[1]) as f:
    found = json.load(f)
assert found["network"] is True
assert {"kernel", "you", "viaductd", "driver", "limits", "interfaces", "rules"} == {f["section"] for f in found["findings"]}
veth, = [i for i in found["interfaces"] if i["name"] == "check0"]
assert veth["kind"] == veth["driver"] == "veth" and veth["xdp_native"] and veth["mtu"] == 1500, veth
PY
	result $? "check --json is JSON and says the same"
	stop_daemon
	with_daemon 0 0 env MUTE=1
	check "check: viaductd that does not answer" 1 'lack +it does not greet: Connection timed out' "$viaduct" check
	stop_daemon
	with_daemon 0 0
	check "check: viaductd that does not serve this user" 1 'lack +it does not serve your user' "$viaduct" check
	stop_daemon
	with_daemon 1 1 env NO_RINGS=1
	check "check: a kernel that gives nobody rings" 1 'lack +it can give no program rings' "$viaduct" check
	stop_daemon
	with_daemon 1 0
	check "check: viaductd that gives a veth" 0 'note +it gives you a veth' "$viaduct" check
	stop_daemon
	with_daemon 1 1 env PATH=/usr/bin:/bin setpriv --reuid 65534 --clear-groups
	check "check: who answers must be root or this user" 1 'lack +somebody answers to its name' "$viaduct" check
	stop_daemon
	nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	if "${nobody[@]}" test -x "$viaduct"; then
		check "check: a user who can't start viaductd is told what to do" 1 'mend: sudo (systemctl start viaductd.socket|viaductd)' "${nobody[@]}" "$viaduct" check
	fi
	ip link set check0 down
	check "check: an interface that is down" 1 'check0: it is down' "$viaduct" check
	ip link del check0
fi
finish
