#!/bin/sh
# Downloads, with their dependencies, the packages that a bare host's mirror offers, next to the base system's own.
# Run by mmdebstrap while apt's lists are there: $1 is the root, $2 the folder to fill, the rest are package names.
set -eu
root=$1 folder=$2
shift 2
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --download-only --no-install-recommends install "$@"
mkdir -p "$folder"
cp "$root"/var/cache/apt/archives/*.deb "$folder/"
