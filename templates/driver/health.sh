# shellcheck shell=sh
# needs: shell/nvidia_smi.sh
# Health of GPUs.

# gpu_health FIELD...: the fields that this nvidia-smi offers, then a line with their values for each GPU.
# One unknown field makes the whole query fail.
gpu_health() {
  offered=$(smi --help-query-gpu) || exit
  fields=
  for field in "$@"; do
    case $offered in *"\"$field\""*) fields=$fields${fields:+,}$field ;; esac
  done
  echo "$fields"
  smi --query-gpu="$fields" --format=csv,noheader,nounits
}
