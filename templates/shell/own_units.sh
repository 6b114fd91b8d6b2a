# shellcheck shell=sh
# Units that earlier runs wrote.

# Folder of units that are not from packages.
unit_folder=/etc/systemd/system

# First words of every unit that we write; a unit without them is somebody else's and stays.
unit_mark='# Written by provision'

# has_unit_mark UNIT
has_unit_mark() {
  first=
  read -r first 2>/dev/null <"$1"
  case $first in "$unit_mark"*) ;; *) return 1 ;; esac
}

# own_units PREFIX...: the units PREFIX@INSTANCE.service with our mark.
own_units() {
  for prefix in "$@"; do
    for unit in "$unit_folder/$prefix"@*.service; do
      ! has_unit_mark "$unit" || echo "$unit"
    done
  done
}
