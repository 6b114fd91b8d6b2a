# shellcheck shell=sh
# needs: shell/own_units.sh
# When instances were started, and what has come since.

# Folder of the environments of instances.
environments=/etc/triton

# Folder of the canary.
canary_folder=/usr/local/share/provision/triton

# What each instance serves with, from before its files change until the new version is ready; a file for each unit.
served_versions=/var/lib/provision/served

# Seconds by which started_at may be wrong.
imprecision=2

# environment_of UNIT: the file of it.
environment_of() {
  of=${1#triton@}
  echo "$environments/${of%.service}.env"
}

# start_of UNIT: a line that no other start of it has.
start_of() { echo "start $(systemctl show -p InvocationID --value -- "$1")"; }

# is_kept UNIT: what it was started with.
is_kept() { grep -q -s -x -F -e "$(start_of "$1")" "$served_versions/$1"; }

# started_at UNIT: when its process was started last, in seconds since 1970.
started_at() {
  read -r up _ </proc/uptime
  began=$(systemctl show -p ExecMainStartTimestampMonotonic --value -- "$1")
  echo $(($(date +%s) - ${up%.*} + ${began:-0} / 1000000))
}

# changed_at FILE: in seconds since 1970; 0 if it is not there.
changed_at() { stat -L -c %Y -- "$1" 2>/dev/null || echo 0; }

# unseen_files UNIT: its files that have changed since it was started, where what it was started with is not kept. Of
# drop-ins, which are others', nothing is kept.
unseen_files() {
  systemctl is-active --quiet -- "$1" || return 0
  latest=$(($(started_at "$1") + imprecision))
  is_kept "$1" || unseen_of "$unit_folder/$1" "$(environment_of "$1")"
  unseen_of "$unit_folder/$1.d"/*.conf "/run/systemd/system/$1.d"/*.conf
}

# unseen_of FILE...: those that have changed after $latest.
unseen_of() {
  for file in "$@"; do
    [ "$(changed_at "$file")" -le "$latest" ] || echo "unseen $file"
  done
}

# owed_to_servers FOLDER UNIT...: the notes of these in it that no start of the unit has settled since.
owed_to_servers() {
  folder=$1
  shift
  for unit in "$@"; do
    for note in "$folder/restart-$unit" "$folder/wait-for-$unit"; do
      [ ! -e "$note" ] || is_settled "$note" "$unit" || echo "${note##*/}"
    done
  done
}

# is_settled NOTE UNIT: the unit was started after the note, and after what its start reads came. Its command is
# compared with that of the process, which systemd may have started before it had read the file.
is_settled() {
  earliest=$(($(started_at "$2") - imprecision))
  for file in "$1" "$(environment_of "$2")" "$canary_folder"/*/config.pbtxt "$canary_folder"/*/*/*.py; do
    [ "$(changed_at "$file")" -lt "$earliest" ] || return
  done
}
