#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Help, version and the documentation of knobs, which come from tables.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

check "no command: the usage" 2 '^Usage: viaduct COMMAND' "$viaduct"
check "--help" 0 '^Usage: viaduct COMMAND' "$viaduct" --help
check "help run tells the profiles" 0 'throughput' "$viaduct" help run
check "help stat" 0 'json' "$viaduct" help stat
check "help explain" 0 'viaduct explain PID' "$viaduct" help explain
for command in run stat explain check dump knobs; do
	check "the usage names $command" 0 "^  $command " "$viaduct" help
	check "help $command says its exit status" 0 '^Exit status: ' "$viaduct" help $command
	check "$command --help is the same" 0 "^Usage: viaduct $command" "$viaduct" $command --help
done
check "an option by its letter" 0 '^\{$' "$viaduct" stat -j
check "help on nothing there is" 2 'no help on "walk"' "$viaduct" help walk
check "run --help" 0 '^Usage: viaduct run' "$viaduct" run --help
check "stat --help" 0 '^Usage: viaduct stat' "$viaduct" stat --help
check "version" 0 '^viaduct [0-9]+\.[0-9]+\.[0-9]+$' "$viaduct" version
check "an unknown command" 2 'no command "walk"' "$viaduct" walk
check "knobs" 0 'SPIN_US = 50 \(0 to 1000000 us\)' "$viaduct" knobs
check "knobs with an argument" 2 'help knobs' "$viaduct" knobs all

"$viaduct" knobs --markdown >"$work/knobs.md"
diff "$source_dir/docs/knobs.md" "$work/knobs.md"
result $? "docs/knobs.md is what viaduct knobs --markdown prints"
finish
