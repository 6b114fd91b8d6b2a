# shellcheck shell=sh
# needs: shell/installed_kernels.sh
# The kernels that count on a host, and the driver's module of a kernel.

# Where DKMS keeps its books.
# shellcheck disable=SC2034  # for files that need this one
dkms_tree=/var/lib/dkms

# has_headers KERNEL: what DKMS looks for is there.
has_headers() { [ -e "/lib/modules/$1/build/Makefile" ]; }

# find_driver_module KERNEL: sets $driver_file to the file of the driver's module, wherever packages put it, or nothing.
# Places: DKMS on Debian and Ubuntu (updates), and on RHEL (extra); RHEL's precompiled and weak modules; Ubuntu's signed
# ones (kernel). Debian names the module after the alternative that it is: nvidia-current.
find_driver_module() {
  for driver_file in "/lib/modules/$1"/updates/dkms/nvidia.ko* "/lib/modules/$1"/updates/dkms/nvidia-current.ko*; do
    [ ! -f "$driver_file" ] || return 0
  done
  driver_file=$(find -L "/lib/modules/$1/updates" "/lib/modules/$1/extra" "/lib/modules/$1/weak-updates" \
    "/lib/modules/$1/kernel" -type f -regextype posix-extended -regex \
    '.*/nvidia(-current(-open)?|-tesla(-[0-9]+)?|-legacy-[0-9]+xx)?\.ko(\.[a-z]+)?' -print -quit 2>/dev/null) || :
}

# has_driver KERNEL: a file has the driver's module for it.
has_driver() { find_driver_module "$1" && [ -n "$driver_file" ]; }

# find_module_version KERNEL: sets $module_version to the version of the driver's module, or nothing if it tells none;
# fails where there is no module, neither in a file nor in the kernel.
find_module_version() {
  module_version=
  if has_driver "$1"; then
    module_version=$(modinfo -F version "$driver_file" 2>/dev/null) || :
  elif built_in_driver "$1"; then
    # shellcheck disable=SC2034  # for the caller
    read -r module_version </sys/module/nvidia/version
  else
    return 1
  fi
}

# find_installed FIELD: sets $installed to a field of the module that "modprobe nvidia" would load now.
# modinfo does not follow the rule with which Debian's packages lead modprobe from nvidia to nvidia-current.
find_installed() {
  installed=$(modinfo -F "$1" nvidia 2>/dev/null) && return
  read -r running </proc/sys/kernel/osrelease
  find_driver_module "$running"
  # shellcheck disable=SC2034  # for the caller
  installed=$(modinfo -F "$1" "$driver_file" 2>/dev/null)
}

# built_in_driver KERNEL: the driver is built into the running kernel: such a module has no reference count in sysfs.
built_in_driver() {
  read -r running </proc/sys/kernel/osrelease
  [ "$1" = "$running" ] && [ -e /sys/module/nvidia/version ] && [ ! -e /sys/module/nvidia/refcnt ]
}
