#!/bin/sh
# Runs every fuzz target of the module for a short while: fuzz.sh DURATION.
set -eu
time=${1:-3s}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
corpus=$(go env GOCACHE)/fuzz # where go test keeps what it found

# fuzz TARGET runs one of the package's.
fuzz() {
	echo "fuzz $pkg $1 for $time"
	# Making what was found smaller takes a second beyond the duration even
	# where nothing was: a finding is as useful in its first form.
	(cd "$dir" && "$tmp/test" -test.run '^$' -test.fuzz "^$1\$" -test.fuzztime "$time" -test.fuzzminimizetime 0s \
		-test.fuzzcachedir "$corpus/$pkg") </dev/null >"$tmp/log" 2>&1 && status=0 || status=$?
	# Before Go 1.27 the end of -fuzztime itself may be reported as a failure on
	# a busy machine (go.dev/issue/75804). It is no finding: those name an input.
	# Its log says FAIL, which whoever reads ours would take for one.
	if [ $status != 0 ] && grep -q '^ *context deadline exceeded$' "$tmp/log" && ! grep -Eq 'Failing input|panic:|_test\.go:' "$tmp/log"; then
		echo "fuzz $pkg $1: stopped at its deadline, nothing found"
		return
	fi
	cat "$tmp/log"
	return $status
}

go list -f '{{.ImportPath}} {{.Dir}}' ./... >"$tmp/packages"
while read -r pkg dir; do
	targets=$(grep -hos '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //') || continue
	[ -n "$targets" ] || continue
	# One build for all targets of a package, which go test -fuzz would link anew
	# for each.
	go test -c -fuzz . -o "$tmp/test" "$pkg" </dev/null
	for target in $targets; do
		fuzz "$target"
	done
done <"$tmp/packages"
