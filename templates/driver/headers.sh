# shellcheck shell=sh
# needs: driver/kernels.sh
# Which kernels have what the driver's modules need, and whether packages bring the rest.

# headers_package_debian KERNEL: sets $package to the package with its headers.
headers_package_debian() {
  case $1 in *-pve) package=proxmox-headers-$1 ;; *) package=linux-headers-$1 ;; esac
}

# headers_package_rhel KERNEL: the same on RHEL.
headers_package_rhel() {
  case $1 in
    *uek*) package=kernel-uek-devel-$1 ;;
    *+*) package=kernel-${1#*+}-devel-${1%%+*} ;;
    *) package=kernel-devel-$1 ;;
  esac
}

# kernel_packaged_debian KERNEL: prints something if a package of the host brought the kernel.
kernel_packaged_debian() { grep -l -s -x -F "/boot/vmlinuz-$1" /var/lib/dpkg/info/*"$1"*.list; }

# kernel_packaged_rhel KERNEL: the same on RHEL.
kernel_packaged_rhel() { timeout -k 5 20 rpm -qf "/lib/modules/$1/vmlinuz" 2>/dev/null; }

# package_offered_debian PACKAGE: prints whether a repository that the host knows has it; unknown without any lists.
package_offered_debian() {
  set -- "$(timeout -k 5 30 apt-cache policy "$1" 2>/dev/null)" /var/lib/apt/lists/*Packages*
  case $1 in
    *"Candidate: (none)"*) echo no ;;
    *Candidate:*) echo yes ;;
    *) if [ -e "$2" ]; then echo no; else echo unknown; fi ;;
  esac
}

# package_offered_rhel PACKAGE: the same on RHEL.
package_offered_rhel() {
  if offers=$(timeout -k 5 60 dnf -q -C repoquery "$1" 2>/dev/null); then
    if [ -n "$offers" ]; then echo yes; else echo no; fi
  else
    echo unknown
  fi
}

# kernel_states FAMILY [PREFIX]: a line for each kernel: release, package, whether what it needs is there; if not,
# whether a package brought the kernel and whether the package is offered. Package tools run only then.
# It needs headers; with PREFIX, ready modules of packages whose names begin so.
kernel_states() {
  find_kernels
  for k in $kernels; do
    if [ -n "${2-}" ]; then
      package=$2-$k
      has_driver "$k" && ready=yes || ready=no
    else
      "headers_package_$1" "$k"
      has_headers "$k" && ready=yes || ready=no
    fi
    if [ "$ready" = yes ]; then
      echo "$k $package yes - -"
      continue
    fi
    own=no
    [ -z "$("kernel_packaged_$1" "$k")" ] || own=yes
    echo "$k $package no $own $("package_offered_$1" "$package")"
  done
}

# newest_kernel_states FAMILY [PREFIX]: the same, and a line "module" where the running kernel has the driver's module
# although it has no headers.
newest_kernel_states() {
  kernel_states "$@"
  if ! has_headers "$running" && has_driver "$running"; then echo module; fi
}
