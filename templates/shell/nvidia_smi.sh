# shellcheck shell=sh
# nvidia-smi.

# smi ARGUMENT...: with a limit, as it can hang for ever when a GPU has fallen off the bus (Xid 79).
smi() { timeout -k 5 30 nvidia-smi "$@"; }
