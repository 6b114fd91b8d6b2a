# shellcheck shell=sh disable=SC2154,SC2016,SC3013
# (3013: every sh that we meet, dash, bash and busybox, knows -nt.)
# Kernels: their headers, what is built for them, the initramfs, nouveau. $kernels, driver_module and
# missing_nodes come with the steps that use them.

# headers_are_there KERNEL...
headers_are_there() {
  for kernel in "$@"; do
    [ -e "/lib/modules/$kernel/build/Makefile" ] || fail "the headers of kernel $kernel are missing" || return
  done
}

# install_headers_debian PACKAGE...
install_headers_debian() { apt_install "$*" -- "$@"; }

# install_headers_rhel PACKAGE...
install_headers_rhel() { dnf_install "" "$*" "$@"; }

# left_behind HOW KERNEL KERNEL...: the driver cannot be had for it, and it is not the one that the host boots next,
# which is the last.
left_behind() {
  how=$1 behind=$2
  shift 2
  while [ $# -gt 1 ]; do shift; done
  [ "$behind" != "$1" ] || return
  if [ "$how" = dkms ]; then ! headers_are_there "$behind" 2>/dev/null; else ! has_candidate "$how-$behind"; fi
}

# has_candidate PACKAGE: some repository has it.
has_candidate() {
  case $(apt-cache policy "$1") in *"Candidate: (none)"*) return 1 ;; *Candidate:*) ;; *) return 1 ;; esac
}

# module_is_there KERNEL VERSION: where modprobe finds it, and as dkms says where it has built it; or in the kernel.
module_is_there() {
  file=$(driver_module "$1")
  if [ -n "$file" ]; then
    found=$(modinfo -F version "$file" 2>/dev/null)
  elif [ "$1" = "$(uname -r)" ] && [ -e /sys/module/nvidia/version ] && [ ! -e /sys/module/nvidia/refcnt ]; then
    read -r found </sys/module/nvidia/version
  else
    fail "kernel $1 has no module of the driver"
    return
  fi
  # shellcheck disable=SC2254  # the version is a pattern on purpose
  case ${found:-$2} in $2) ;; *) fail "kernel $1 has the driver's module $found, wanted $2"; return ;; esac
  built=$(dkms_versions "$1")
  for found in $built; do
    # shellcheck disable=SC2254
    case $found in $2) return ;; esac
  done
  [ -z "$built" ] || fail "dkms has installed $built for kernel $1, wanted $2"
}

# dkms_versions KERNEL: the versions of the driver that dkms says are installed. Before 3.0 it put a comma between
# name and version.
dkms_versions() {
  command -v dkms >/dev/null || return 0
  timeout 60 dkms status -k "$1" |
    sed -n -e '/^nvidia-fs[/,]/d' -e '/^nvidia-peermem[/,]/d' \
      -e 's/^nvidia[^,/]*[/,] *\([^,]*\), .*: installed.*/\1/p'
}

# modules_are_there HOW VERSION KERNEL...: HOW is dkms, or the beginning of the names of packages with ready modules.
modules_are_there() {
  how=$1 wanted=$2
  shift 2
  for kernel in "$@"; do
    module_is_there "$kernel" "$wanted" || left_behind "$how" "$kernel" "$@" || return
  done
}

# build_modules HOW VERSION KERNEL...
build_modules() {
  how=$1 wanted=$2
  shift 2
  for kernel in "$@"; do
    if module_is_there "$kernel" "$wanted" 2>/dev/null; then
      continue
    elif left_behind "$how" "$kernel" "$@"; then
      echo "the driver cannot be had for kernel $kernel any more: it stays without"
    elif [ "$how" = dkms ]; then
      headers_are_there "$kernel" && dkms_build "$kernel" "$wanted" || return
    elif ! apt_install "$how-$kernel" -- "$how-$kernel"; then
      for other in /lib/modules/*/; do
        other=${other%/} other=${other##*/}
        [ -z "$(driver_module "$other")" ] ||
          fail "reboot needed: $how-$kernel cannot be installed, but kernel $other has the driver" || return
      done
      return 1
    fi
  done
}

# dkms_build KERNEL VERSION
dkms_build() {
  known=
  # shellcheck disable=SC2231  # the version is a pattern on purpose
  for folder in /usr/src/nvidia*-$2/dkms.conf /var/lib/dkms/nvidia*/$2; do
    [ -e "$folder" ] || continue
    case $folder in
      */nvidia-fs[-/]* | */nvidia-peermem[-/]*) ;;
      /usr/src/*) folder=${folder%/*} folder=${folder##*/} known=${folder%-*}/${folder##*-} ;;
      *) known=${folder#/var/lib/dkms/} ;;
    esac
  done
  say "building the driver for kernel $1, which takes minutes"
  if [ -z "$known" ]; then
    dkms autoinstall -k "$1"
  elif [ -n "$(driver_module "$1")" ]; then
    # Without --force, dkms keeps a module that it finds there, and says that all is well.
    dkms install "$known" -k "$1" --force
  else
    dkms install "$known" -k "$1"
  fi || build_errors
}

explainers="$explainers build_errors"

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
  for kernel in $kernels; do
    for image in "/boot/initrd.img-$kernel" "/boot/initramfs-$kernel.img"; do
      if [ -e "$image" ] && [ "$1" -nt "$image" ]; then
        fail "$image is older than $1"
        return
      fi
    done
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
  [ -d /sys/module/nvidia_uvm ] || timeout 120 modprobe -- nvidia-uvm || return
  for minor in $minors 255; do
    name=/dev/nvidia$minor
    if [ "$minor" = 255 ]; then name=/dev/nvidiactl; fi
    [ -c "$name" ] || mknod -m 0666 "$name" c 195 "$minor" || return
  done
  major=$(sed -n 's/^ *\([0-9]*\) nvidia-uvm$/\1/p' /proc/devices)
  rm -f /dev/nvidia-uvm /dev/nvidia-uvm-tools
  mknod -m 0666 /dev/nvidia-uvm c "$major" 0 && mknod -m 0666 /dev/nvidia-uvm-tools c "$major" 1
}
