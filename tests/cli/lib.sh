# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034
# Sourced by the tests of the command line. check NAME STATUS PATTERN COMMAND...: the command must end with STATUS and its
# output (both streams) must match the extended regular expression PATTERN. The script's exit status is finish's.
set -u
build=$VIADUCT_TEST_BUILD
source_dir=$VIADUCT_TEST_SOURCE
# Its own variables are knobs to viaduct, which refuses unknown ones.
unset VIADUCT_TEST_BUILD VIADUCT_TEST_SOURCE
viaduct=$build/viaduct
work=$(mktemp -d)
started=()
failures=0

cleanup() {
	local pid
	for pid in ${started[@]+"${started[@]}"}; do kill "$pid" 2>/dev/null; done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

result() {
	if [ "$1" = 0 ]; then
		echo "ok $2"
	else
		echo "not ok $2"
		failures=$((failures + 1))
	fi
}

check() {
	local name=$1 want=$2 pattern=$3 output status=0
	shift 3
	output=$(timeout 60 "$@" 2>&1) || status=$?
	if [ "$status" = "$want" ] && grep -Eq -- "$pattern" <<<"$output"; then
		result 0 "$name"
	else
		printf '%s: status %s (expected %s), output:\n%s\n' "$name" "$status" "$want" "$output"
		result 1 "$name"
	fi
}

# await COMMAND...: until it succeeds.
await() {
	local tries=1200
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.05
	done
}

# True once a process is in a network namespace of its own.
has_left() {
	[ -n "$(readlink "/proc/$1/ns/net")" ] && [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

finish() {
	[ "$failures" = 0 ]
	exit
}
