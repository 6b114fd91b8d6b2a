# shellcheck shell=sh
# needs: shell/file_state.sh
# The CDI specs of a host, and the driver that they should be of.

# The kind of devices that a spec of the GPUs describes.
# shellcheck disable=SC2034  # used by Python
cdi_kind=nvidia.com/gpu

# Where container engines look for specs.
cdi_folders='/etc/cdi /var/run/cdi'

# The spec that the refresh unit writes; gone with every boot.
# shellcheck disable=SC2034  # used by steps, and by Python
cdi_spec=/var/run/cdi/nvidia.yaml

# The unit of the toolkit that makes the spec at boot and when the driver's modules change.
refresh_unit=nvidia-cdi-refresh

# cdi_state: what the driver and the specs say, a word and its text in every line, then the contents of the specs;
# nothing of NVIDIA's is run for it.
cdi_state() {
  version=
  [ -r /sys/module/nvidia/version ] && read -r version </sys/module/nvidia/version
  echo "driver $version"
  refresh_at_boot
  for file in /proc/driver/nvidia/gpus/*/information; do
    [ ! -r "$file" ] || while read -r one two rest; do
      case "$one $two" in "GPU UUID:") echo "uuid $rest" ;; "Device Minor:") echo "minor $rest" ;; esac
    done <"$file"
  done
  mig_state /proc/driver/nvidia/capabilities
  set --
  for folder in $cdi_folders; do
    for file in "$folder"/*.yaml "$folder"/*.json; do [ ! -f "$file" ] || set -- "$@" "$file"; done
  done
  [ $# -eq 0 ] || { gone_paths "$@"; contents "$@"; }
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
    [ ! -r "$access" ] || while read -r key minor; do
      [ "$key" != DeviceFileMinor: ] || echo "cap ${access#"$1"/} $minor"
    done <"$access"
  done
}

# gone_paths SPEC...: the files and nodes that they name and the host lacks. In a subshell, which takes lines for words.
gone_paths() (
  set -f
  IFS='
'
  # shellcheck disable=SC2013  # read takes a system call for each byte
  for path in $(sed -n -E 's/^[^#]*[pP]ath"?:[[:space:]]*"?([^",]*)"?,?[[:space:]]*$/\1/p' -- "$@"); do
    [ -e "$path" ] || echo "gone $path"
  done
)
