# shellcheck shell=sh
# needs: driver/kernels.sh driver/initramfs.sh driver/library.sh driver/nodes.sh shell/nvidia_smi.sh shell/dnf_state.sh
# needs: shell/facts.sh
# What verification asks of the driver.

# driver_state: NVIDIA's devices on the PCI bus, version and origin of the loaded module, and device nodes that are
# missing: a word and its text in every line. Nothing here starts a program that makes nodes.
driver_state() {
  nvidia_devices | sed 's/^/pci /'
  sed 's/^/module /' /sys/module/nvidia/version
  sed -n 's/^NVRM version: */kind /p' /proc/driver/nvidia/version
  if [ -e /proc/driver/nvidia/version ]; then missing_nodes | sed 's/^/node /'; fi
} 2>/dev/null

# driver_libraries: the files behind the library's links.
driver_libraries() {
  for library in $(library_links); do readlink -f "$library"; done
}

# driver_packages: a line for each package of the driver: state, name, version and, where it is held, hold.
driver_packages() {
  if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${db:Status-Want}\n' \
      'nvidia-*' 'libnvidia-*' libcuda1 'firmware-nvidia-*' 'linux-modules-nvidia-*' nvlsm
  else
    rpm -qa --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\n' 'nvidia*' 'kmod-nvidia*' nvlsm
    sed -n -E 's/^(.*)-[0-9]+:.*/installed \1 locked hold/p' "$locks"
  fi 2>/dev/null || :
}

# driver_pins FILE: the versions to which the file of apt's preferences pins, and what unattended-upgrades leaves alone.
driver_pins() {
  command -v apt-config >/dev/null || return 0
  {
    sed -n 's/^Pin: version /pin /p' "$1"
    apt-config dump Unattended-Upgrade::Package-Blacklist | sed -n 's/^[^"]*:: "\(.*\)";$/alone \1/p'
  } 2>/dev/null || :
}

# images_without FILE: the images of the initramfs that have no copy of it; those that cannot be read are left out.
images_without() {
  find_initramfs_images
  for image in $images; do
    if command -v lsinitramfs >/dev/null; then lister=lsinitramfs; else lister=lsinitrd; fi
    files=$(timeout 30 "$lister" "$image" 2>/dev/null) || continue
    case $files in *"${1#/}"*) ;; *) echo "$image" ;; esac
  done
}

# module_signer: who signed the module that is loaded.
module_signer() {
  if [ -d /sys/module/nvidia ] && find_installed signer; then echo "$installed"; fi
}

# fabric_states: the state of the Fabric Manager, and of each GPU's fabric, which the driver tells from Hopper on;
# before, it is N/A.
fabric_states() {
  systemctl show -p ActiveState --value nvidia-fabricmanager.service
  smi --query-gpu=index,fabric.state,fabric.status --format=csv,noheader
}
