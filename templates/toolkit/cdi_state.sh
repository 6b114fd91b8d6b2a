# shellcheck shell=sh
# needs: shell/file_state.sh
# The CDI specs of a host, and the driver that they should be of.

# The kind of devices that a spec of the GPUs describes.
cdi_kind=nvidia.com/gpu

# Where container engines look for specs.
cdi_folders='/etc/cdi /var/run/cdi'

# The spec that the refresh unit writes; gone with every boot.
# shellcheck disable=SC2034  # used by steps, and by Python
cdi_spec=/var/run/cdi/nvidia.yaml

# The unit of the toolkit that makes the spec at boot and when the driver's modules change.
refresh_unit=nvidia-cdi-refresh

# cdi_state: what the driver and the specs say, a word and its text in every line; nothing of NVIDIA's is run for it.
cdi_state() {
  version=
  [ -r /sys/module/nvidia/version ] && read -r version </sys/module/nvidia/version
  echo "driver $version"
  refresh_at_boot
  timeout 10 sed -n -e 's/^GPU UUID:[[:space:]]*/uuid /p' -e 's/^Device Minor:[[:space:]]*/minor /p' \
    /proc/driver/nvidia/gpus/*/information 2>/dev/null
  mig_state /proc/driver/nvidia/capabilities
  for folder in $cdi_folders; do
    for file in "$folder"/*.yaml "$folder"/*.json; do spec_state "$file"; done
  done
  :
}

# refresh_at_boot: "boot" and whether the refresh unit makes the spec then: enabled, disabled, or never without a unit.
refresh_at_boot() {
  boot=never wants=/etc/systemd/system/multi-user.target.wants/$refresh_unit
  for folder in /etc /usr/lib /lib; do [ ! -e "$folder/systemd/system/$refresh_unit.service" ] || boot=disabled; done
  [ ! -e "$wants.service" ] || [ ! -e "$wants.path" ] || boot=enabled
  echo "boot $boot"
}

# mig_state FOLDER: the GPUs that may be divided, by their minors, and the minors of the nodes of their parts.
mig_state() {
  for mig in "$1"/gpu*/mig; do [ -d "$mig" ] && mig=${mig%/mig} && echo "mig ${mig##*gpu}"; done
  for access in "$1"/gpu*/mig/gi*/access "$1"/gpu*/mig/gi*/ci*/access; do
    [ -r "$access" ] && sed -n "s|^DeviceFileMinor:|cap ${access#"$1"/}|p" "$access"
  done
}

# spec_state FILE: its text, and the files and nodes that it names and the host lacks; nothing for other kinds of specs.
spec_state() {
  [ -f "$1" ] && grep -q -F -e "$cdi_kind" -- "$1" || return
  [ "$(stat -L -c %s -- "$1")" -le "$largest_file" ] || return
  echo "spec $1"
  echo "text $(gzip -c -- "$1" | base64 -w0)"
  sed -n -E 's/^[^#]*[pP]ath"?:[[:space:]]*"?([^",]*)"?,?[[:space:]]*$/\1/p' -- "$1" |
    while IFS= read -r path; do [ -e "$path" ] || echo "gone $path"; done
}
