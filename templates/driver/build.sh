# shellcheck shell=sh
# needs: driver/kernels.sh shell/apt.sh shell/dnf.sh
# The headers of kernels, and the driver's modules built or installed for them.

# headers_are_there KERNEL...
headers_are_there() {
  for kernel in "$@"; do
    has_headers "$kernel" || fail "the headers of kernel $kernel are missing" || return
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
  find_module_version "$1" || fail "kernel $1 has no module of the driver" || return
  found=$module_version
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
  timeout -k 5 60 dkms status -k "$1" |
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
        ! has_driver "$other" ||
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
  for folder in /usr/src/nvidia*-$2/dkms.conf "$dkms_tree"/nvidia*/$2; do
    [ -e "$folder" ] || continue
    case $folder in
      */nvidia-fs[-/]* | */nvidia-peermem[-/]*) ;;
      /usr/src/*) folder=${folder%/*} folder=${folder##*/} known=${folder%-*}/${folder##*-} ;;
      *) known=${folder#"$dkms_tree"/} ;;
    esac
  done
  say "building the driver for kernel $1, which takes minutes"
  if [ -z "$known" ]; then
    dkms autoinstall -k "$1"
  elif has_driver "$1"; then
    # Without --force, dkms keeps a module that it finds there, and says that all is well.
    dkms install "$known" -k "$1" --force
  else
    dkms install "$known" -k "$1"
  fi || build_errors
}

explainers="$explainers build_errors"

# build_errors: what compilers said in this run, the causes first; fails, as what it explains did.
build_errors() {
  for log in "$dkms_tree"/nvidia*/*/build/make.log; do
    # shellcheck disable=SC3013  # dash, bash and busybox know -nt
    if [ ! -e "$log" ] || [ "$run/pid" -nt "$log" ]; then continue; fi
    echo "$log:"
    grep -m 6 -E 'error:|ERROR|Error [0-9]|fatal|not found|No such file|No space|Killed' "$log" || tail -n 6 "$log"
  done
  return 1
}
