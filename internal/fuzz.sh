#!/bin/sh
# Runs every fuzz target of the module for a short while: fuzz.sh DURATION.
set -eu
time=${1:-3s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
targets() {
	go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do
		for target in $(grep -hos '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //'); do
			echo "$pkg $target"
		done
	done
}
targets | while read -r pkg target; do
	echo "fuzz $pkg $target for $time"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg" </dev/null >"$log" 2>&1 && status=0 || status=$?
	cat "$log"
	[ $status = 0 ] && continue
	# Before Go 1.27 the end of -fuzztime itself may be reported as a failure on
	# a busy machine (go.dev/issue/75804). It is no finding: those name an input.
	if grep -q '^ *context deadline exceeded$' "$log" && ! grep -Eq 'Failing input|panic:|_test\.go:' "$log"; then
		echo "fuzz $pkg $target: stopped at its deadline, nothing found"
		continue
	fi
	exit $status
done
