# shellcheck shell=sh
# needs: shell/own_units.sh
# What the processes of instances were started with.

# commands_of UNIT...: a line with unit and process of each that runs, and whose command no drop-in sets. Then what these
# processes were started with, each below a line with the path of it.
commands_of() {
  for unit in "$@"; do
    shift
    process=
    for group in /sys/fs/cgroup /sys/fs/cgroup/systemd; do
      read -r process 2>/dev/null <"$group/system.slice/system-triton.slice/$unit/cgroup.procs" && break
    done
    if [ -z "$process" ] || command_is_set "$unit"; then continue; fi
    echo "$unit $process"
    set -- "$@" "/proc/$process/cmdline"
  done
  echo
  [ $# -eq 0 ] || head -v -c 1048576 -- "$@" 2>/dev/null
}

# command_is_set UNIT: by a drop-in, in which local changes have their place.
command_is_set() {
  for folder in "$unit_folder" /run/systemd/system; do
    for dropin in "$folder/$1.d"/*.conf "$folder"/triton@.service.d/*.conf; do
      [ -r "$dropin" ] || continue
      while read -r line; do
        case $line in ExecStart=?*) return 0 ;; esac
      done <"$dropin"
    done
  done
  return 1
}

# runs_command UNIT SHA256: the sum of what its process was started with.
runs_command() {
  case $(sha256sum <"/proc/$(systemctl show -p MainPID --value -- "$1")/cmdline") in "$2 "*) ;; *) return 1 ;; esac
}

# runs_image CONTAINER IMAGE: the container runs what the image's name stands for now.
runs_image() {
  now=$(timeout -k 5 20 docker image inspect --format '{{.Id}}' "$2") || return
  [ "$(timeout -k 5 20 docker inspect --type container --format '{{.Image}}' "$1")" = "$now" ]
}

# is_not_paused CONTAINER
is_not_paused() {
  [ "$(timeout -k 5 20 docker inspect --type container --format '{{.State.Paused}}' "$1")" = false ]
}

# has_process CONTAINER
has_process() {
  timeout -k 5 20 docker top "$1" -eo pid >/dev/null
}
