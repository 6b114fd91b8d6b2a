# shellcheck shell=sh
# needs: shell/dnf_state.sh
# What dnf would do.

# For awk: the locks that are not ours.
locks_of_others='BEGIN { while ((getline name <held) > 0) ours[name] }
{ name = $0; sub(/-[^-]*-[^-]*$/, "", name) } !(name in ours)'

# What runs in the mount namespace. Its arguments are the constants that it needs, MODULE, STREAM, and the packages.
preview_in_namespace='set -e
held=$1 locks=$2 streams=$3 locks_of_others=$4 module=$5 stream=$6
shift 6
mount -t tmpfs tmpfs /mnt
if [ -n "$module" ]; then
  mkdir /mnt/streams && cp -a "$streams/." /mnt/streams
  printf "[%s]\nname=%s\nstream=%s\nprofiles=\nstate=enabled\n" "$module" "$module" "$stream" \
    >"/mnt/streams/$module.module"
  mount --bind /mnt/streams "$streams"
fi
if [ -e "$locks" ]; then
  awk -v held="$held" "$locks_of_others" "$locks" >/mnt/locks && mount --bind /mnt/locks "$locks"
fi
umount /mnt
exec dnf --assumeno --color=never --setopt=install_weak_deps=False install --allowerasing "$@"'

# dnf_preview MODULE:STREAM PACKAGE[-VERSION]...: what dnf install would do once our own locks are lifted and this
# stream is enabled, which may be empty. Both are so for this question alone: in a mount namespace of its own.
dnf_preview() {
  module=${1%%:*} stream=${1#*:}
  shift
  unshare --mount sh -c "$preview_in_namespace" dnf_preview \
    "$held" "$locks" "$streams" "$locks_of_others" "$module" "$stream" "$@" 2>&1
}
