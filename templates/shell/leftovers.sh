# shellcheck shell=sh
# needs: shell/record.sh shell/own_units.sh shell/units.sh shell/dnf.sh
# What nobody wants any more, taken away.

# take_away ROLE ITEM...: files, into the backups; holds. Whatever goes is not in the record any more.
take_away() {
  role=$1
  shift
  for item in "$@"; do
    case $item in
      file:*) may_go "${item#file:}" "$role" || { fail "${item#file:} is not what we wrote there"; return; } ;;
    esac
    case $item in
      "file:$unit_folder"/*/*) remove_file "${item#file:}" && systemctl daemon-reload ;;
      "file:$unit_folder"/*) retire_unit "${item#file:}" ;;
      file:*) remove_file "${item#file:}" ;;
      hold:*) lift_hold "${item#hold:}" ;;
    esac || return
    forget -x -F -e "$role $item" || return
  done
  rm -f "$run/apt-is-fresh"
}

# forget PATTERN...: takes the lines that match, as grep has it, out of the record.
forget() {
  grep -v "$@" "$record" >"$record.new" || [ $? -eq 1 ] || return
  keep_record
}

# forget_role ROLE
forget_role() { forget -e "^$1 "; }

# is_forgotten ROLE: nothing of it is in the record.
is_forgotten() { ! grep -q -s -e "^$1 " "$record"; }

# lift_hold PACKAGE: if it is ours.
lift_hold() {
  is_ours "$1" || return 0
  if command -v apt-mark >/dev/null; then
    ! dpkg-query -W "$1" >/dev/null 2>&1 || apt-mark unhold "$1" || return
  else
    unlock_rpms "$1" || return
  fi
  grep -v -x -F -e "$1" "$held" >"$held.new" || [ $? -eq 1 ] || return
  keep_held
}
