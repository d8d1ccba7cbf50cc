# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
# fetch_headers DIRECTORY (sourced, after packages.sh and kernel.sh): what builds a module for the kernel that fetch_kernel has
# unpacked there: Debian's headers, unpacked beside it and not installed, with their absolute paths bent. DIRECTORY/headers is the
# place for make -C. Needs the network once. The compiler is the machine's.

# shellcheck disable=SC2034
driver_packages=(gcc make libelf1 sparse perl nftables)

fetch_headers() {
	local dir version common package packages
	dir=$(readlink -f "$1") || return 1
	[ -e "$dir/headers" ] && return 0
	version=$(cat "$dir/version") || return 1
	common=${version%-amd64}-common
	mapfile -t packages < <(apt-cache depends "linux-headers-$version" | sed -nE 's/.*Depends: (linux-(headers|kbuild)-.*)/\1/p')
	echo "fetching: linux-headers-$version, to build the kernel module" >&2
	rm -rf "$dir/deb" && mkdir -p "$dir/deb" || return 1
	# apt gives its rights away and must be able to write there
	chmod 777 "$dir/deb"
	(cd "$dir/deb" && apt-get -qq download "linux-headers-$version" "${packages[@]}") >/dev/null || return 1
	for package in "$dir"/deb/*.deb; do
		dpkg -x "$package" "$dir" || return 1
	done
	rm -rf "${dir:?}/deb"
	echo "include $dir/usr/src/linux-headers-$common/Makefile" >"$dir/usr/src/linux-headers-$version/Makefile"
	# without it no BTF is made, which would need another package
	rm -f "$dir/usr/src/linux-headers-$version/vmlinux"
	ln -sfn "usr/src/linux-headers-$version" "$dir/headers"
}
