# shellcheck shell=sh
# What a host is made of, as /sys and /proc tell it, read by the shell itself. A line is a word and a value.

# value_of FILE: sets $value to the first line of a small file; fails where it cannot be read, or is empty.
value_of() {
  value=
  [ -f "$1" ] && { read -r value <"$1"; } 2>/dev/null
  [ -n "$value" ]
}

# tell WORD FILE: the word with that line, where there is one.
tell() { if value_of "$2"; then printf '%s %s\n' "$1" "$value"; fi; }

# tell_last WORD FOLDER: the word with the last name of the folder that a link leads to.
tell_last() { if cd -P "$2" 2>/dev/null; then printf '%s %s\n' "$1" "${PWD##*/}"; fi; }

# hardware: all of it. It changes the folder of its shell.
hardware() {
  processors
  main_memory
  disks
  network_functions
  firmware
}

# processors: the model of the first, and for each thread its socket, its core and its die. The kernel has lists of
# the threads of a core as well, which a shell that reads single bytes finds empty.
processors() {
  while IFS=: read -r key value; do
    case $key in 'model name'*) echo "cpu-model$value" && break ;; '') break ;; esac
  done </proc/cpuinfo
  for thread in /sys/devices/system/cpu/cpu[0-9]*; do
    value_of "$thread/topology/physical_package_id" || continue
    socket=$value
    value_of "$thread/topology/die_id" || value=0
    tell "thread $socket $value" "$thread/topology/core_id"
  done
  set -- /sys/devices/system/node/node[0-9]*
  [ ! -e "$1" ] || echo "numa-nodes $#"
}

# main_memory: what the kernel can use; and, where it tells, the blocks of memory that the firmware has given it.
main_memory() {
  while read -r key value unit; do
    [ "$key" != MemTotal: ] || { echo "memory-kib $value" && break; }
  done </proc/meminfo
  set -- /sys/devices/system/memory/memory[0-9]*
  if [ -e "$1" ]; then
    echo "memory-blocks $#"
    tell memory-block /sys/devices/system/memory/block_size_bytes
  fi
}

# disks: those with hardware behind them. Drives for discs and paths of multipath NVMe are none.
disks() {
  for disk in /sys/block/*; do
    case ${disk##*/} in sr* | fd*) continue ;; esac
    [ -e "$disk/device" ] || continue
    if value_of "$disk/hidden" && [ "$value" != 0 ]; then continue; fi
    if ! value_of "$disk/size" || [ "$value" = 0 ]; then continue; fi
    echo "disk ${disk##*/}"
    echo "sectors $value"
    tell rotational "$disk/queue/rotational"
    tell disk-model "$disk/device/model"
    if cd -P "$disk/device" 2>/dev/null; then echo "disk-path $PWD"; fi
  done
}

# network_functions: those on the PCI bus, with their interfaces; virtual functions are left out.
network_functions() {
  for function in /sys/bus/pci/devices/*; do
    value_of "$function/class" || continue
    case $value in 0x02*) ;; *) continue ;; esac
    [ ! -e "$function/physfn" ] || continue
    echo "nic ${function##*/}"
    tell nic-vendor "$function/vendor"
    tell nic-device "$function/device"
    tell_last nic-driver "$function/driver"
    for interface in "$function"/net/* "$function"/virtio*/net/*; do
      [ -e "$interface" ] || continue
      echo "interface ${interface##*/}"
      tell speed "$interface/speed"
      tell state "$interface/operstate"
    done
    for port in "$function"/infiniband/*/ports/*; do
      tell rate "$port/rate"
    done
  done
}

# firmware: who made the machine, and its BIOS.
firmware() {
  for word in sys_vendor product_name bios_vendor bios_version bios_date; do
    tell "$word" "/sys/class/dmi/id/$word"
  done
  [ ! -d /sys/firmware/efi ] || echo "uefi 1"
}

# software: versions of NVIDIA's driver that runs and of its toolkit.
software() {
  tell driver /sys/module/nvidia/version
  if command -v nvidia-ctk >/dev/null; then timeout -k 5 10 nvidia-ctk --version 2>/dev/null; fi
}
