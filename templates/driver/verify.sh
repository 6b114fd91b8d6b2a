# shellcheck shell=sh
# needs: driver/kernels.sh shell/initramfs.sh driver/library.sh driver/nodes.sh shell/nvidia_smi.sh shell/facts.sh
# What verification asks of the driver.

# driver_state: NVIDIA's devices on the PCI bus, version and origin of the loaded module, and device nodes that are
# missing: a word and its text in every line. Nothing here starts a program that makes nodes.
driver_state() {
  nvidia_devices | sed 's/^/pci /'
  [ ! -d /sys/module/nouveau ] || echo "nouveau loaded"
  sed 's/^/module /' /sys/module/nvidia/version
  sed -n 's/^NVRM version: */kind /p' /proc/driver/nvidia/version
  if [ -e /proc/driver/nvidia/version ]; then missing_nodes | sed 's/^/node /'; fi
} 2>/dev/null

# driver_libraries: the files behind the library's links.
driver_libraries() {
  for library in $(library_links); do readlink -f "$library"; done
}

# images_without FILE: the images of the initramfs that have no copy of it; those that cannot be read are left out.
images_without() {
  find_initramfs_images
  for image in $images; do
    if command -v lsinitramfs >/dev/null; then lister=lsinitramfs; else lister=lsinitrd; fi
    files=$(timeout -k 5 30 "$lister" "$image" 2>/dev/null) || continue
    case $files in *"${1#/}"*) ;; *) echo "$image" ;; esac
  done
}

# module_signer: who signed the module that is loaded.
module_signer() {
  if [ -d /sys/module/nvidia ] && find_installed signer; then echo "$installed"; fi
}

# fabric_states: the state of each GPU's fabric, which the driver tells from Hopper on; before, it is N/A.
fabric_states() { smi --query-gpu=index,fabric.state,fabric.status --format=csv,noheader; }

# nvlink_states: each link of each GPU, with its speed or <inactive>.
nvlink_states() { smi nvlink -s; }
