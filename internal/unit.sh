#!/bin/sh
# Runs the tests of the given packages under the race detector, and prints what
# was skipped with its reason, which go test keeps to itself.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test -race -v "$@" >"$log" 2>&1
status=$?
if [ $status != 0 ]; then
	cat "$log"
else
	grep -E '^(ok|FAIL|panic)' "$log"
fi
# A skipped test prints its reason, then its verdict.
grep -B 3 -E '^ *--- SKIP' "$log" | grep -E '_test.go:[0-9]+: |--- SKIP' | sed 's/^ */skipped: /'
exit $status
