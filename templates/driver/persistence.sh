# shellcheck shell=sh
# needs: shell/nvidia_smi.sh shell/units.sh
# Persistence mode of the GPUs.

# persistence_is_on: for every GPU that has it.
persistence_is_on() {
  modes=$(smi --query-gpu=persistence_mode --format=csv,noheader) || return
  case $modes in *Disabled*) return 1 ;; esac
}

# await_persistence: the daemon turns it on for one GPU after the other.
await_persistence() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    ! persistence_is_on || return 0
    sleep 2
  done
  fail "persistence mode is off after a restart of nvidia-persistenced.service"
}
