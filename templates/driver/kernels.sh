# shellcheck shell=sh
# The kernels that count on a host, and the driver's module of a kernel.

# Where DKMS keeps its books.
# shellcheck disable=SC2034  # for files that need this one
dkms_tree=/var/lib/dkms

# find_kernels: sets $running, $newest, and $kernels to both of them, or to the one that they are.
# A folder of modules without a kernel is what DKMS leaves of one that was removed. Debug kernels are booted only when
# somebody asks for them.
find_kernels() {
  read -r running </proc/sys/kernel/osrelease
  set --
  for k in /lib/modules/*/; do
    k=${k%/} k=${k##*/}
    case $k in *+debug) continue ;; esac
    if [ -e "/boot/vmlinuz-$k" ] || [ -e "/lib/modules/$k/vmlinuz" ]; then set -- "$@" "$k"; fi
  done
  case $# in
    0) newest=$running ;;
    1) newest=$1 ;;
    *) newest=$(printf '%s\n' "$@" | sort -V | tail -n 1) ;;
  esac
  # shellcheck disable=SC2034  # for the caller
  kernels=$running
  if [ "$newest" != "$running" ]; then
    # shellcheck disable=SC2034
    kernels="$running $newest"
  fi
}

# has_headers KERNEL: what DKMS looks for is there.
has_headers() { [ -e "/lib/modules/$1/build/Makefile" ]; }

# driver_module KERNEL: prints the file of the driver's module, wherever packages put it.
# Places: DKMS on Debian and Ubuntu (updates), and on RHEL (extra); RHEL's precompiled and weak modules; Ubuntu's signed
# ones (kernel). Debian names the module after the alternative that it is: nvidia-current.
driver_module() {
  find -L "/lib/modules/$1/updates" "/lib/modules/$1/extra" "/lib/modules/$1/weak-updates" \
    "/lib/modules/$1/kernel" -type f -regextype posix-extended -regex \
    '.*/nvidia(-current(-open)?|-tesla(-[0-9]+)?|-legacy-[0-9]+xx)?\.ko(\.[a-z]+)?' -print -quit 2>/dev/null
}

# module_version KERNEL: prints the version of the driver's module, or nothing if it tells none; fails where there is no
# module, neither in a file nor in the kernel.
module_version() {
  file=$(driver_module "$1")
  if [ -n "$file" ]; then
    modinfo -F version "$file" 2>/dev/null || :
  elif built_in_driver "$1"; then
    cat /sys/module/nvidia/version
  else
    return 1
  fi
}

# installed_module FIELD: prints a field of the module that "modprobe nvidia" would load now.
# modinfo does not follow the rule with which Debian's packages lead modprobe from nvidia to nvidia-current.
installed_module() {
  timeout 10 modinfo -F "$1" nvidia 2>/dev/null ||
    timeout 10 modinfo -F "$1" "$(driver_module "$(uname -r)")" 2>/dev/null
}

# built_in_driver KERNEL: the driver is built into the running kernel: such a module has no reference count in sysfs.
built_in_driver() {
  [ "$1" = "$(uname -r)" ] && [ -e /sys/module/nvidia/version ] && [ ! -e /sys/module/nvidia/refcnt ]
}
