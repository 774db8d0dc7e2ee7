#!/bin/sh
# Installs the Debian packages that packages.txt names and that are missing.
set -eu
cd "$(dirname "$0")"
missing=
for p in $(sed 's/#.*//' packages.txt); do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "skipped: installing$missing needs root; the tests that need them will say so" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -qq
# shellcheck disable=SC2086 # a list of names
apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing
