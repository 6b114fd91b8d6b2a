# shellcheck shell=sh
# needs: shell/lines.sh
# The host itself, as its kernel, its boot loader and its journal have it.

# Where the arguments are kept that are ours in the entries of RHEL's boot loader.
kernel_arguments=/var/lib/provision/kernel-args

# first_line FILE: sets $line to it; fails for what cannot be read.
first_line() {
  line=
  [ -r "$1" ] || return
  read -r line 2>/dev/null <"$1" || [ -n "$line" ]
}

# kernel_values FILE...: the first line of files of /proc/sys, each below a line with its path. The shell's read cannot
# read them: it asks for one byte after the other, and the kernel gives numbers only to who begins at the first.
kernel_values() { head -v -n 1 -- "$@" 2>/dev/null || :; }

# host_kernel [MODULE|PARAMETER_FILE]...: the command line in force and what the boot loader has; then what is there
# of modules and their parameters.
host_kernel() {
  first_line /proc/cmdline
  printf 'running %s\n' "$line"
  boot_loader
  for item in "$@"; do
    case $item in
      /*) ! first_line "$item" || printf 'parameter %s %s\n' "$item" "$line" ;;
      *) ! has_module "$item" || printf 'module %s\n' "$item" ;;
    esac
  done
}

# boot_loader: its tool, and what each of its entries hands to the kernel.
boot_loader() {
  if command -v grubby >/dev/null && [ -d /boot/loader/entries ]; then
    echo 'loader grubby'
    sed -n -e 's/^options[[:blank:]]/entry /p' -e 's/^kernelopts=/kernelopts /p' /boot/loader/entries/*.conf \
      /boot/grub2/grubenv 2>/dev/null
    lines_of "$kernel_arguments"
  elif command -v update-grub >/dev/null && [ -f /boot/grub/grub.cfg ]; then
    echo 'loader grub'
    sed -n '/root=/s/^[[:blank:]]*linux[[:blank:]]/entry /p' /boot/grub/grub.cfg
    for place in /etc/default/grub.d /etc/default/grub.d/*provision.cfg; do
      # shellcheck disable=SC3013  # dash, bash and busybox know -nt
      if [ "$place" -nt /boot/grub/grub.cfg ]; then echo stale; fi
    done
  fi
}

# has_module NAME: loaded, or a part of the kernel.
has_module() {
  [ ! -d "/sys/module/$1" ] || return 0
  read -r release </proc/sys/kernel/osrelease
  grep -q -s -e "/$(printf '%s' "$1" | sed 's/_/[-_]/g')\.ko\$" "/lib/modules/$release/modules.builtin"
}

# governors: for each CPU frequency policy its governor and those that it knows.
governors() {
  for policy in /sys/devices/system/cpu/cpufreq/policy*; do
    first_line "$policy/scaling_governor" || continue
    now=$line
    first_line "$policy/scaling_available_governors" || :
    printf '%s %s\n' "$now" "$line"
  done
}

# journal_state FILE: stale where it, or its folder, is younger than the journal's daemon, which makes its socket when
# it starts.
journal_state() {
  for place in "$1" "${1%/*}"; do
    # shellcheck disable=SC3013
    if [ -S /run/systemd/journal/io.systemd.journal ] && [ "$place" -nt /run/systemd/journal/io.systemd.journal ]; then
      echo stale
    fi
  done
}
