#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# What `cmake --install` makes: all parts, also where the tree is moved afterwards; a unit that starts what lies beside it; headers
# that compile by what pkg-config says, each alone.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

first=$work/first
tree=$work/tree
check "an ordinary user's prefix" 0 'viaductd.service' cmake --install "$build" --prefix "$first"
check "the unit starts the viaductd that was installed with it" 0 "^ExecStart=$first/bin/viaductd --config $first/etc/viaduct/viaductd.conf$" \
	cat "$first/lib/systemd/system/viaductd.service"
documentation=$(sed -n 's,^Documentation=file:,,p' "$first/lib/systemd/system/viaductd.service")
check "the documentation that the unit names is there" 0 '^# The network' cat "$documentation"
check "nothing in braces or at signs is left in what is made from a pattern" 1 '^$' \
	grep -rE '@[a-zA-Z_]+@' "$first/lib/systemd/system/viaductd.service" "$(find "$first" -name viaduct.pc)"

mv "$first" "$tree"
library=$(find "$tree" -name libviaduct.so)
check "a moved tree finds its library" 0 "$library" "$tree/bin/viaduct" run cat /proc/self/maps
check "a moved tree finds viaduct-dump" 2 'pcap-filter' "$tree/bin/viaduct" dump no filter
check "viaductd says what it takes" 0 'interface' "$tree/bin/viaductd" --help
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ ! -e /usr/local/lib/systemd/system/viaductd.socket ]; then
	chmod 755 "$work"
	# a namespace of its own: in this one a viaductd of an earlier test may still run
	check "check names the viaductd that lies beside it" 1 "mend: sudo $tree/bin/viaductd" \
		unshare --net setpriv --reuid 65534 --regid 65534 --clear-groups "$tree/bin/viaduct" check
fi
check "the example of rules holds" 0 '' "$tree/bin/viaduct" run --rules "$tree/etc/viaduct/rules" true

PKG_CONFIG_PATH=$(dirname "$(find "$tree" -name viaduct.pc)")
export PKG_CONFIG_PATH
if command -v pkg-config >/dev/null; then
	check "pkg-config follows a moved tree" 0 "^-I$tree/include" pkg-config --define-prefix --cflags viaduct
fi
for header in "$tree"/include/viaduct/*.h; do
	name=$(basename "$header")
	check "$name compiles alone" 0 '^$' "${CC:-cc}" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only \
		-I"$tree/include" -include "viaduct/$name" -x c /dev/null
done
finish
