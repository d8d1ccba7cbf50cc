#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Rules: how run refuses wrong ones, what the library does with them, and that explain names the rule.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

printf 'kernel prot=tcp\n' >"$work/wrong"
printf 'kernel port=7005\naccelerate\n' >"$work/port"
check "run refuses wrong rules with line and column" 2 'wrong:1:8: there is no such condition' "$viaduct" run --rules "$work/wrong" true
check "... and carets under the word" 2 '^           \^\^\^\^$' "$viaduct" run --rules "$work/wrong" true
check "run refuses rules that are not there" 2 "can't read the rules in $work/none" "$viaduct" run --rules "$work/none" true
check "run refuses wrong rules of the environment" 2 'wrong:1:8:' env VIADUCT_RULES="$work/wrong" "$viaduct" run true
check "the library leaves all to the kernel when rules are wrong" 0 'wrong:1:8:' \
	env VIADUCT_RULES="$work/wrong" LD_PRELOAD="$build/libviaduct.so" true
(
	cd "$work" || exit 1
	# shellcheck disable=SC2016
	check "--rules becomes a path from the root" 0 "^$work/port$" "$viaduct" run --rules port sh -c 'echo $VIADUCT_RULES'
	exit "$failures"
) || failures=$((failures + 1))

cat >"$work/sockets.py" <<'PY'
import os, socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
client = socket.create_connection(listener.getsockname())
accepted = listener.accept()
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.connect(("127.0.0.1", 53))
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bound.bind(("127.0.0.1", int(sys.argv[2])))
names = {"listener": listener, "client": client, "resolver": resolver, "bound": bound}
told = subprocess.run([sys.argv[1], "explain", str(os.getpid())], env={}, check=True, capture_output=True, text=True).stdout
for line in told.splitlines():
    for name, its in names.items():
        line = line.replace(f"fd {its.fileno()}:", name + ":")
    print(line)
PY
ruled=("$viaduct" run --rules "$work/port" python3 "$work/sockets.py" "$viaduct")
check "a listener that a rule names is the kernel's, and explain says which rule" 0 \
	"^listener: the kernel's. A rule leaves it to the kernel. It is in $work/port, line 1.$" "${ruled[@]}" 7005
check "so is a connection to it" 0 "^client: the kernel's. A rule.* line 1.$" "${ruled[@]}" 7005
check "and a UDP socket that is bound there" 0 "^bound: the kernel's. A rule.* line 1.$" "${ruled[@]}" 7005
check "one that no rule names is accelerated" 0 '^listener: tcp 127.0.0.1:7006: accelerated' "${ruled[@]}" 7006
check "a file of rules replaces the built-in ones" 0 '^resolver: udp .*accelerated' "${ruled[@]}" 7006
if [ ! -e /etc/viaduct/rules ]; then
	check "without a file DNS stays in the kernel" 0 "^resolver: the kernel's. A rule .* built-in rules, line 1.$" \
		"$viaduct" run python3 "$work/sockets.py" "$viaduct" 7007
fi
finish
