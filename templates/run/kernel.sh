# shellcheck shell=sh disable=SC2154,SC2016,SC3013
# (3013: every sh that we meet, dash, bash and busybox, knows -nt.)
# Kernels: their headers, what is built for them, the initramfs, nouveau. $running and $newest and the functions
# has_module and missing_nodes come with the steps that use them.

# headers_are_there KERNEL...
headers_are_there() {
  for kernel in "$@"; do
    [ -e "/lib/modules/$kernel/build/Makefile" ] || fail "the headers of kernel $kernel are missing" || return
  done
}

# install_headers_debian PACKAGE...
install_headers_debian() { apt_install "$*" -- "$@"; }

# install_headers_rhel PACKAGE...
install_headers_rhel() { dnf -q -y install "$@"; }

# left_behind KERNEL KERNEL...: nothing can be built for it, and it is not the one that the host boots next, which
# is the last.
left_behind() {
  behind=$1
  while [ $# -gt 2 ]; do shift; done
  [ "$behind" != "$2" ] && ! headers_are_there "$behind" 2>/dev/null
}

# modules_are_there HOW VERSION KERNEL...: HOW is dkms, or what brings ready modules.
modules_are_there() {
  how=$1 wanted=$2
  shift 2
  for kernel in "$@"; do
    if left_behind "$kernel" "$@"; then continue; fi
    has_module "$kernel" || fail "kernel $kernel has no module of the driver" || return
    [ "$how" != dkms ] || dkms_installed "$kernel" "$wanted" || return
  done
}

# dkms_versions KERNEL: the versions of the driver that dkms says are installed. From version 3 on it separates name
# and version by a slash.
dkms_versions() {
  timeout 60 dkms status -k "$1" |
    sed -n -e '/^nvidia-fs[/,]/d' -e '/^nvidia-peermem[/,]/d' -e 's/^nvidia[^,/]*[/,] *\([^,]*\), .*: installed.*/\1/p'
}

# dkms_installed KERNEL VERSION: what dkms says; nothing for modules that come from packages.
dkms_installed() {
  versions=$(dkms_versions "$1")
  for version in $versions; do
    # shellcheck disable=SC2254  # the version is a pattern on purpose
    case $version in $2) return ;; esac
  done
  [ -z "$versions" ] || fail "dkms has installed $versions for kernel $1, wanted $2"
}

# build_modules HOW VERSION KERNEL...
build_modules() {
  how=$1 wanted=$2
  shift 2
  for kernel in "$@"; do
    if left_behind "$kernel" "$@"; then
      echo "kernel $kernel has no headers: left as it is"
    elif [ "$how" = dkms ]; then
      headers_are_there "$kernel" && dkms_build "$kernel" "$wanted" || return
    elif ! has_module "$kernel"; then
      apt_install "$how-$kernel" -- "$how-$kernel" || return
    fi
  done
}

# dkms_build KERNEL VERSION
dkms_build() {
  if has_module "$1" && dkms_installed "$1" "$2" 2>/dev/null; then return; fi
  known=
  # shellcheck disable=SC2231  # the version is a pattern on purpose
  for folder in /var/lib/dkms/nvidia*/$2; do
    case $folder in
      */nvidia-fs/* | */nvidia-peermem/*) ;;
      *) [ ! -d "$folder" ] || known=${folder#/var/lib/dkms/} ;;
    esac
  done
  if [ -z "$known" ]; then
    dkms autoinstall -k "$1"
  elif [ -n "$(dkms_versions "$1")" ]; then
    # Another version is there, which dkms replaces by an older one only when told to.
    dkms install "$known" -k "$1" --force
  else
    dkms install "$known" -k "$1"
  fi || build_errors
}

# build_errors: what compilers said in this run, the causes first; fails, as what it explains did.
build_errors() {
  for log in /var/lib/dkms/nvidia*/*/build/make.log; do
    if [ ! -e "$log" ] || [ "$run/pid" -nt "$log" ]; then continue; fi
    echo "$log:"
    grep -m 6 -E 'error:|ERROR|Error [0-9]|fatal|not found|No such file|No space|Killed' "$log" || tail -n 6 "$log"
  done
  return 1
}

rebuild_initramfs() {
  # Of all kernels: without -k, update-initramfs rebuilds that of the newest only, and dracut that of the running.
  if command -v update-initramfs >/dev/null; then
    update-initramfs -u -k all
  elif command -v dracut >/dev/null; then
    dracut --force --regenerate-all
  fi
}

# initramfs_is_newer FILE
initramfs_is_newer() {
  for image in "/boot/initrd.img-$running" "/boot/initrd.img-$newest" \
    "/boot/initramfs-$running.img" "/boot/initramfs-$newest.img"; do
    if [ -e "$image" ] && [ "$1" -nt "$image" ]; then
      fail "$image is older than $1"
      return
    fi
  done
}

# unload_nouveau: only while nothing uses it, no device and no console.
unload_nouveau() {
  [ -d /sys/module/nouveau ] || return 0
  read -r users </sys/module/nouveau/refcnt || return
  [ "$users" = 0 ] || fail "reboot needed: nouveau is loaded and has $users users" || return
  if grep -q -s nouveau /proc/fb; then
    fail "reboot needed: nouveau is loaded and drives the console"
    return
  fi
  timeout 60 modprobe -r -- nouveau || fail "reboot needed: nouveau is loaded and cannot be unloaded"
}

nodes_are_there() { [ -z "$(missing_nodes)" ] || fail "missing in /dev: $(missing_nodes | tr '\n' ' ')"; }

# make_nodes: for all GPUs that the driver has found.
make_nodes() {
  minors=$(sed -n 's/^Device Minor:[[:space:]]*//p' /proc/driver/nvidia/gpus/*/information 2>/dev/null)
  if command -v nvidia-modprobe >/dev/null; then
    # shellcheck disable=SC2046,SC2086  # several words on purpose
    nvidia-modprobe -u $(printf ' -c=%s' ${minors:-0})
    return
  fi
  timeout 120 modprobe -- nvidia-uvm || return
  for minor in $minors 255; do
    name=/dev/nvidia$minor
    if [ "$minor" = 255 ]; then name=/dev/nvidiactl; fi
    [ -c "$name" ] || mknod -m 0666 "$name" c 195 "$minor" || return
  done
  major=$(sed -n 's/^ *\([0-9]*\) nvidia-uvm$/\1/p' /proc/devices)
  rm -f /dev/nvidia-uvm /dev/nvidia-uvm-tools
  mknod -m 0666 /dev/nvidia-uvm c "$major" 0 && mknod -m 0666 /dev/nvidia-uvm-tools c "$major" 1
}
