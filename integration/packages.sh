#!/bin/sh
# Installs the Debian packages that packages.txt names and that are missing,
# and unpacks those of unpacked.txt, which must not be installed.
set -eu
cd "$(dirname "$0")"
unpacked=/var/cache/vpnprobe-lab # internal/lab looks here

missing=
for p in $(sed 's/#.*//' packages.txt); do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
packed=
for p in $(sed 's/#.*//' unpacked.txt); do
	[ -d "$unpacked/$p" ] || packed="$packed $p"
done
[ -n "$missing$packed" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "skipped: installing$missing$packed needs root; the tests that need them will say so" >&2
	exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -qq
if [ -n "$missing" ]; then
	# shellcheck disable=SC2086 # a list of names
	apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing
fi
for p in $packed; do
	tmp=$(mktemp -d)
	chmod 755 "$tmp"
	(cd "$tmp" && apt-get download -qq -o APT::Sandbox::User=root "$p")
	dpkg -x "$tmp/$p"_*.deb "$tmp/$p"
	mkdir -p "$unpacked"
	mv "$tmp/$p" "$unpacked/$p"
	rm -r "$tmp"
done
