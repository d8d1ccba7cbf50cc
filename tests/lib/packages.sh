# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
# Installing what is missing, for tests/run and bench/demo (sourced). Nothing is installed when all is there.
#
# Packages that bring a service must not start it: a policy-rc.d that says no stands there while apt runs, unless the
# machine has one of its own.

# shellcheck disable=SC2034 # used by those who source this
build_packages=(cmake ninja-build gcc g++ pkg-config libcmocka-dev libmnl-dev python3 iproute2 ethtool util-linux
	clang bpftool libbpf-dev libxdp-dev libpcap-dev libibverbs-dev)
# shellcheck disable=SC2034
test_packages=(clang clang-format clang-tidy libclang-rt-14-dev shellcheck strace tcpdump curl libpython3.11-testsuite)
# shellcheck disable=SC2034
program_packages=(redis-server redis-tools nginx-light wrk sockperf iperf3 gnuplot-nox
	memcached libmemcached-tools postgresql haproxy apache2-bin mariadb-server-core
	mariadb-client-core nodejs nghttp2-client openssl unbound dnsmasq-base bind9-dnsutils
	mosquitto mosquitto-clients varnish squid openmpi-bin openjdk-17-jdk-headless parallel minify gron busybox-static)

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The packages among the arguments that are not installed, one a line.
missing_packages() {
	local name
	for name in "$@"; do
		# nginx comes in flavours that exclude each other: any will do
		if [ "$name" = nginx-light ] && [ -x /usr/sbin/nginx ]; then continue; fi
		if [ "$name" = gnuplot-nox ] && command -v gnuplot >/dev/null; then continue; fi
		dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || echo "$name"
	done
}

# apt-get with these arguments, services kept from starting. In a subshell, so that its trap is its own.
quiet_apt() (
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'as_root rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod +x "$policy"
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y "$@" >/dev/null
)

install_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "installing: ${missing[*]}" >&2
	quiet_apt install --no-install-recommends "${missing[@]}" 2>/dev/null && return 0
	quiet_apt update && quiet_apt install --no-install-recommends "${missing[@]}"
}

# netperf is in Debian's non-free component: the machine's own sources with that component added, for this one command
# only. Returns 1 where it can't be had.
install_netperf() {
	local dir status=0 file
	command -v netperf >/dev/null && return 0
	echo "installing: netperf (non-free component)" >&2
	dir=$(mktemp -d)
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	chmod 755 "$dir"
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$file" ] && sed -E '/^deb /!d; / (main)( |$)/!d; s/ main( |$)/ main non-free\1/' "$file" >>"$dir/all.list"
	done
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -f "$file" ] && sed -E 's/^(Components:.*main.*)$/\1 non-free/' "$file" >>"$dir/all.sources" &&
			echo >>"$dir/all.sources"
	done
	for file in "$dir/all.sources" "$dir/all.list"; do
		[ -s "$file" ] || continue
		local options=(-o "Dir::Etc::sourcelist=$file" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$dir/lists"
			-o "Dir::Cache=$dir/cache")
		status=0
		if quiet_apt "${options[@]}" update && quiet_apt "${options[@]}" install --no-install-recommends netperf; then
			break
		fi
		status=1
	done
	rm -rf "$dir"
	[ $status = 0 ] && command -v netperf >/dev/null
}
