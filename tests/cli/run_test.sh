#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# viaduct run: what it refuses, with what words and status, and what it hands to the program.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

check "a program runs and its status is passed on" 3 '^hello$' "$viaduct" run sh -c 'echo hello; exit 3'
check "the library is preloaded" 0 libviaduct.so "$viaduct" run cat /proc/self/maps
check "children are accelerated too" 0 libviaduct.so "$viaduct" run sh -c 'cat /proc/self/maps; true'
check "options behind the program are its own" 0 '^--set X$' "$viaduct" run echo --set X
check "-- ends the options" 0 '^x$' "$viaduct" run -- echo x
check "a script runs by its interpreter" 0 '^script$' "$viaduct" run "$(
	printf '#!/bin/sh\necho script\n' >"$work/script" && chmod +x "$work/script" && echo "$work/script"
)"
check "a script without #! runs by the shell" 0 '^plain$' "$viaduct" run "$(
	printf 'echo plain\n' >"$work/plain" && chmod +x "$work/plain" && echo "$work/plain"
)"
# shellcheck disable=SC2016
check "--set becomes an environment variable" 0 '^7$' "$viaduct" run --set SPIN_US=7 sh -c 'echo $VIADUCT_SPIN_US'
# shellcheck disable=SC2016
check "--profile becomes an environment variable" 0 '^cpu$' "$viaduct" run --profile cpu sh -c 'echo $VIADUCT_PROFILE'
# shellcheck disable=SC2016
check "what LD_PRELOAD has is kept, first" 0 '^libm.so.6:/.*/libviaduct.so$' \
	env LD_PRELOAD=libm.so.6 "$viaduct" run sh -c 'echo $LD_PRELOAD'
# shellcheck disable=SC2016
check "run within run preloads once" 0 '^[^:]*libviaduct.so$' "$viaduct" run "$viaduct" run sh -c 'echo $LD_PRELOAD'

check "no program" 2 'which program' "$viaduct" run
check "an unknown option" 2 'help run' "$viaduct" run --fast ls
check "an unknown knob: the nearest" 2 'no knob SPINUS; the nearest is SPIN_US' "$viaduct" run --set SPINUS=5 ls
check "a bad value: its range" 2 'from 0 to 1000000 us' "$viaduct" run --set SPIN_US=many ls
check "a knob without value" 2 'lacks a value' "$viaduct" run --set SPIN_US ls
check "an unknown profile: the list" 2 'latency.throughput.cpu' "$viaduct" run --profile fast ls
check "an unknown knob in the environment" 2 'VIADUCT_SPIM_US.*nearest is SPIN_US' env VIADUCT_SPIM_US=1 "$viaduct" run ls
check "a program that does not exist" 127 'no program no-such-program in PATH' "$viaduct" run no-such-program
check "a path that does not exist" 127 'no program ./no/such' "$viaduct" run ./no/such
check "a file that is not executable" 126 'Permission denied' "$viaduct" run /etc/passwd
check "a directory" 126 . "$viaduct" run /etc

printf 'int main(void) { return 0; }\n' >"$work/t.c"
cat >"$work/go.c" <<'END'
__asm__(".pushsection .note.go.buildid, \"a\", @note\n.long 4, 8, 4\n.asciz \"Go\\0\"\n.ascii \"build-id\"\n.popsection");
int main(void) { return 0; }
END
gcc "$work/go.c" -o "$work/go" && check "a Go program with C in it is refused with the reason" 126 'is a Go program' "$viaduct" run "$work/go"
if gcc -static "$work/t.c" -o "$work/static" 2>/dev/null; then
	check "a static program is refused with the reason" 126 'statically linked' "$viaduct" run "$work/static"
	printf '#!%s\n' "$work/static" >"$work/static-script" && chmod +x "$work/static-script"
	check "a script with a static interpreter too" 126 'statically linked' "$viaduct" run "$work/static-script"
fi
if gcc -static-pie "$work/t.c" -o "$work/static-pie" 2>/dev/null; then
	check "a static PIE program is refused" 126 'statically linked' "$viaduct" run "$work/static-pie"
fi
gcc "$work/t.c" -o "$work/dynamic"
cp "$work/dynamic" "$work/foreign"
printf '\xb7\x00' | dd of="$work/foreign" bs=1 seek=18 conv=notrunc 2>/dev/null # e_machine: AArch64
check "a program for another architecture is refused" 126 'another architecture' "$viaduct" run "$work/foreign"
head -c 100 "$work/dynamic" >"$work/cut" && chmod +x "$work/cut"
check "half an executable is refused" 126 'not a whole ELF' "$viaduct" run "$work/cut"
sed 's,/lib64/ld-linux-x86-64.so.2,/lib64/ld-musl-x86-64.so.2x,' "$work/dynamic" >"$work/musl" && chmod +x "$work/musl"
check "a program of another C library is refused" 126 'another C library' "$viaduct" run "$work/musl"
printf '#!/no/such/interpreter\n' >"$work/lost" && chmod +x "$work/lost"
check "a script without its interpreter" 126 '/no/such/interpreter: No such file' "$viaduct" run "$work/lost"
printf '#!%s\n' "$work/loop" >"$work/loop" && chmod +x "$work/loop"
check "a script that is its own interpreter" 126 'too many interpreters' "$viaduct" run "$work/loop"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$work"
	cp "$work/dynamic" "$work/setuid" && chmod 4755 "$work/setuid"
	cp "$work/dynamic" "$work/setgid" && chmod 2755 "$work/setgid"
	nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	if "${nobody[@]}" test -x "$viaduct"; then
		check "a setuid program is refused" 126 'setuid' "${nobody[@]}" "$viaduct" run "$work/setuid"
		check "a setgid program is refused" 126 'setgid' "${nobody[@]}" "$viaduct" run "$work/setgid"
	fi
	check "setuid to oneself changes nothing" 0 '' "$viaduct" run "$work/setuid"
fi

mkdir -p "$work/moved/bin" "$work/moved/lib" "$work/a b"
cp "$viaduct" "$work/moved/bin/" && cp "$build/libviaduct.so" "$work/moved/lib/"
check "an installed tree can be moved" 0 "$work/moved/lib/libviaduct.so" "$work/moved/bin/viaduct" run cat /proc/self/maps
cp "$viaduct" "$build/libviaduct.so" "$work/a b/"
check "libc before the library in LD_PRELOAD" 0 '^carried$' env LD_PRELOAD=libc.so.6 "$viaduct" run python3 -c \
	"import socket
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname())
s.accept()[0].send(b'carried')
print(c.recv(10).decode())"
check "a path that LD_PRELOAD can't name is refused" 1 'space or colon' "$work/a b/viaduct" run true
rm "$work/moved/lib/libviaduct.so"
check "a missing library" 1 'no libviaduct.so' "$work/moved/bin/viaduct" run true
finish
