# shellcheck shell=sh
# needs: driver/nodes.sh
# Making the driver's device nodes.

# nodes_are_there
nodes_are_there() { [ -z "$(missing_nodes)" ] || fail "missing in /dev: $(missing_nodes | tr '\n' ' ')"; }

# make_nodes: for all GPUs that the driver has found.
make_nodes() {
  minors=$(sed -n 's/^Device Minor:[[:space:]]*//p' /proc/driver/nvidia/gpus/*/information 2>/dev/null)
  if command -v nvidia-modprobe >/dev/null; then
    # shellcheck disable=SC2046,SC2086  # several words on purpose
    nvidia-modprobe -u $(printf ' -c=%s' ${minors:-0})
    return
  fi
  [ -d /sys/module/nvidia_uvm ] || timeout -k 5 120 modprobe -- nvidia-uvm || return
  for minor in $minors 255; do
    name=/dev/nvidia$minor
    if [ "$minor" = 255 ]; then name=/dev/nvidiactl; fi
    [ -c "$name" ] || mknod -m 0666 "$name" c 195 "$minor" || return
  done
  major=$(sed -n 's/^ *\([0-9]*\) nvidia-uvm$/\1/p' /proc/devices)
  rm -f /dev/nvidia-uvm /dev/nvidia-uvm-tools
  mknod -m 0666 /dev/nvidia-uvm c "$major" 0 && mknod -m 0666 /dev/nvidia-uvm-tools c "$major" 1
}
