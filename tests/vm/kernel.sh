# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
# fetch_kernel DIRECTORY [PACKAGE] (sourced, after packages.sh): Debian's kernel image for the virtual machine, or the one that
# PACKAGE depends on, unpacked there and not installed: vmlinux and the modules. Needs the network once; what is there already is
# taken as it is.
# newest_kernel: the name of the newest kernel's package that the machine's sources have.

# shellcheck disable=SC2034
vm_packages=(qemu-system-x86 busybox-static cpio kmod)

fetch_kernel() {
	local dir=$1 package=${2:-linux-image-amd64} version
	[ -e "$dir/version" ] && return 0
	version=$(apt-cache depends "$package" 2>/dev/null | sed -n 's/.*Depends: linux-image-//p' | head -n 1)
	[ -n "$version" ] || return 1
	echo "fetching: linux-image-$version, for a virtual machine" >&2
	rm -rf "$dir" && mkdir -p "$dir/deb" || return 1
	# apt gives its rights away and must be able to write there
	chmod 777 "$dir/deb"
	(cd "$dir/deb" && apt-get -qq download "linux-image-$version") >/dev/null || return 1
	dpkg -x "$dir"/deb/linux-image-*.deb "$dir" || return 1
	depmod -b "$dir" "$version" || return 1
	python3 -B "$(dirname "${BASH_SOURCE[0]}")/vmlinux.py" "$dir/boot/vmlinuz-$version" "$dir/vmlinux" || return 1
	rm -rf "${dir:?}/deb" "${dir:?}/boot"
	echo "$version" >"$dir/version"
}

newest_kernel() {
	apt-cache pkgnames linux-image- | grep -E '^linux-image-[0-9]+\.[0-9]+-amd64$' | sort -V | tail -n 1 | grep .
}
