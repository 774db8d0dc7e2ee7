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
# Making what was found smaller takes a second beyond the duration even where
# nothing was: a finding is as useful in its first form.
targets | while read -r pkg target; do
	echo "fuzz $pkg $target for $time"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 0s "$pkg" </dev/null >"$log" 2>&1 && status=0 || status=$?
	# Before Go 1.27 the end of -fuzztime itself may be reported as a failure on
	# a busy machine (go.dev/issue/75804). It is no finding: those name an input.
	# Its log says FAIL, which whoever reads ours would take for one.
	if [ $status != 0 ] && grep -q '^ *context deadline exceeded$' "$log" && ! grep -Eq 'Failing input|panic:|_test\.go:' "$log"; then
		echo "fuzz $pkg $target: stopped at its deadline, nothing found"
		continue
	fi
	cat "$log"
	[ $status = 0 ] || exit $status
done
