# shellcheck shell=sh
# needs: shell/nvidia_smi.sh
# What the driver tells of its GPUs, asked once for all kinds of resources.

# driver_says: whether nouveau is loaded; where the driver is, of each GPU its index, ECC mode now and pending, MIG mode now
# and pending, persistence mode and UUID, and nvidia-smi's exit code. It has a limit, as it may hang.
driver_says() {
  if [ -d /sys/module/nouveau ]; then echo nouveau; fi
  if [ -e /proc/driver/nvidia/version ]; then
    smi --format=csv,noheader \
      --query-gpu=index,ecc.mode.current,ecc.mode.pending,mig.mode.current,mig.mode.pending,persistence_mode,uuid
    echo "exit $?"
  fi
  :
}
