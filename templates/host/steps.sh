# shellcheck shell=sh
# needs: host/state.sh shell/files.sh
# What makes the host itself as it is declared.

# kernel_value_is FILE WORD...: a file of /proc/sys holds these words.
kernel_value_is() {
  value=$(head -n 1 -- "$1") || return
  shift
  # shellcheck disable=SC2086  # words are compared, as the kernel separates them by tabs
  [ "$(set -f && echo $value)" = "$*" ]
}

# set_hostname NAME: for the running kernel.
set_hostname() { printf '%s\n' "$1" >/proc/sys/kernel/hostname; }

# load_modules NAME...
load_modules() {
  for name in "$@"; do
    timeout -k 5 60 modprobe -- "$name" || fail "kernel module $name cannot be loaded" || return
  done
}

has_modules() {
  for name in "$@"; do has_module "$name" || return; done
}

# boot_entries WANT ARGUMENT...: every entry of the boot loader has these (WANT is with), or none has one (without).
boot_entries() {
  want=$1
  shift
  boot_loader >"$run/entries"
  grep -q '^entry ' "$run/entries" || return
  # Entries of RHEL 8 may name a variable.
  common=$(sed -n 's/^kernelopts //p' "$run/entries")
  grep '^entry ' "$run/entries" | while read -r _ entry; do
    for argument in "$@"; do
      case " $entry $common " in
        *" $argument "*) [ "$want" = with ] || return ;;
        *) [ "$want" = without ] || return ;;
      esac
    done
  done
}

# update_grub [ARGUMENT...]: the boot loader's file made anew, from which these come.
update_grub() {
  update-grub || return
  boot_entries with "$@" ||
    fail "update-grub made entries without $*: another file of /etc/default/grub.d sets GRUB_CMDLINE_LINUX after ours"
}

# grub_is_fresh [ARGUMENT...]
grub_is_fresh() { ! boot_loader | grep -q -x stale && boot_entries with "$@"; }

# grubby_arguments REMOVED ADDED: on the entries of all kernels, and of those to come.
grubby_arguments() {
  set -- "${1:+--remove-args=$1}" "${2:+--args=$2}"
  grubby --update-kernel=ALL ${1:+"$1"} ${2:+"$2"}
}

# restart_journal: what was logged stays.
restart_journal() { systemctl restart systemd-journald.service; }

# reexecute_systemd: it reads its own configuration; no unit stops.
reexecute_systemd() { systemctl daemon-reexec; }

# systemd_has PROPERTY=VALUE...
systemd_has() {
  for wanted in "$@"; do
    [ "$(systemctl show -p "${wanted%%=*}")" = "$wanted" ] || return
  done
}

# governor_is NAME
governor_is() { ! governors | grep -q -v -e "^$1 "; }

# retire_service UNIT
retire_service() { systemctl disable --quiet --now -- "$1"; }
