# shellcheck shell=sh
# nvidia-smi, which can hang for ever when a GPU has fallen off the bus (Xid 79).

# Seconds after which one that waits in the kernel has hung: its limit and more is over.
smi_patience=60

# smi ARGUMENT...: with a limit. Where an earlier one has hung, which no signal ends, no other is put beside it.
smi() {
  if grep -q -s -x nvidia-smi /proc/[0-9]*/comm && smi_has_hung; then
    echo "nvidia-smi (process $hung) has hung in the kernel, so no other is started" >&2
    return 1
  fi
  timeout -k 5 30 nvidia-smi "$@"
}

# smi_has_hung: sets $hung to the process; one that is only at work is somewhere else a second later.
smi_has_hung() {
  hung=$(hung_smi)
  [ -n "$hung" ] && sleep 1 && [ "$(hung_smi)" = "$hung" ]
}

# hung_smi: the first process of root's that waits in the kernel for long; anybody can call a program so.
hung_smi() {
  ps -C nvidia-smi -o pid=,stat=,etimes=,euid= |
    awk -v limit="$smi_patience" '$2 ~ /^D/ && $3 >= limit && $4 == 0 { print $1; exit }'
}
