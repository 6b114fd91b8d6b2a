# shellcheck shell=sh
# Device nodes of the driver.

# missing_nodes: prints the names of nodes that are missing, or of an old number: that of nvidia-uvm is given out anew
# when the module is loaded, and an old node stays what it was.
missing_nodes() {
  nodes='nvidiactl nvidia-uvm nvidia-uvm-tools'
  for gpu in /proc/driver/nvidia/gpus/*/information; do
    [ ! -r "$gpu" ] || while read -r device minor number; do
      if [ "$device $minor" = "Device Minor:" ]; then nodes="$nodes nvidia$number"; fi
    done <"$gpu"
  done
  for node in $nodes; do
    if [ ! -c "/dev/$node" ]; then echo "$node"; fi
  done
  while read -r major name; do
    if [ "$name" != nvidia-uvm ] || [ ! -c /dev/nvidia-uvm ]; then continue; fi
    device=$(stat -c %t /dev/nvidia-uvm)
    [ "$((0x${device:-0}))" = "$major" ] || echo nvidia-uvm
    break
  done </proc/devices
}

# node_states: the missing nodes, or - while the driver is not loaded. Nothing here starts a program that makes them.
node_states() {
  if [ -e /proc/driver/nvidia/version ]; then missing_nodes; else echo -; fi
}
