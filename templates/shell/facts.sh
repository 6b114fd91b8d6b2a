# shellcheck shell=sh
# needs: shell/lines.sh
# What cannot change on a host during a run.

# system_facts: kernel, machine, dpkg's architecture, id of the boot, and the user that is asking, a line each.
system_facts() {
  lines_of /proc/sys/kernel/osrelease
  # Linux has this file since 6.1.
  if [ -r /proc/sys/kernel/arch ]; then lines_of /proc/sys/kernel/arch; else uname -m; fi
  dpkg --print-architecture 2>/dev/null || echo
  lines_of /proc/sys/kernel/random/boot_id
  while read -r key user rest; do [ "$key" != Uid: ] || echo "$user"; done </proc/self/status
}

# nvidia_devices: address, class and device id of every device of NVIDIA on the PCI bus.
nvidia_devices() {
  for d in /sys/bus/pci/devices/*; do
    read -r vendor 2>/dev/null <"$d/vendor" || continue
    [ "$vendor" = 0x10de ] || continue
    read -r class <"$d/class"
    read -r device <"$d/device"
    printf '%s %s %s\n' "${d##*/}" "$class" "$device"
  done
}

# nvlink5_switch: from NVLink 5 on the switches are managed through a ConnectX, with this mark in its product data,
# which a device is in no hurry to give.
nvlink5_switch() {
  set -- /sys/class/infiniband/*/device/vpd
  if [ -e "$1" ] && timeout -k 5 5 grep -q -s -a SW_MNG "$@"; then echo yes; fi
}

# secure_boot_variable: it holds four bytes of attributes, then 1 where Secure Boot is on (UEFI 2.10, 3.3).
secure_boot_variable() {
  set -- /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
  if [ -e "$1" ]; then od -An -j4 -N1 -tu1 "$1"; fi
}
