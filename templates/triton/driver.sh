# shellcheck shell=sh
# The driver that runs.

# running_driver: the version of the driver's loaded kernel module; nothing where none is loaded.
running_driver() {
  version=
  [ ! -r /sys/module/nvidia/version ] || read -r version </sys/module/nvidia/version
  echo "$version"
}
