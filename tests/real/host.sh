# shellcheck shell=sh
# What the acceptance does on a host. It comes after templates/triton/http.sh, which has http_request.

# what_runs: what a machine that is to be tried out must not have, a line each. It reads only: docker ps could start Docker.
what_runs() {
  for process in /proc/[0-9]*; do
    { read -r name <"$process/comm"; } 2>/dev/null || continue
    case $name in
      containerd-shim* | conmon | lxc-start | systemd-nspawn) echo "a container runs: $name, process ${process#/proc/}" ;;
      tritonserver) echo "a tritonserver runs: process ${process#/proc/}" ;;
      nvidia-persiste* | nv-fabricmanage* | nv-hostengine | nvidia-smi) ;;
      *)
        case " $(readlink "$process"/fd/* 2>/dev/null | tr '\n' ' ')" in
          *' /dev/nvidia'[0-9]*) echo "$name uses a GPU: process ${process#/proc/}" ;;
        esac
        ;;
    esac
  done
  systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating '*triton*.service' |
    while read -r unit _ state _; do echo "the unit $unit is $state"; done
}

# place_model FOLDER NAME CONFIG PROGRAM: writes a model of these texts into a repository that has none of this name.
place_model() {
  if [ -e "$1/$2" ]; then
    echo "$1/$2 is there already" >&2
    return 1
  fi
  mkdir -p "$1/$2/1" && printf %s "$3" >"$1/$2/config.pbtxt" && printf %s "$4" >"$1/$2/1/model.py"
}

# await_ready SECONDS ADDRESS PORT TEXT: until the request is answered with 200.
await_ready() {
  end=$(($(date +%s) + $1))
  shift
  while [ "$(date +%s)" -lt "$end" ]; do
    case $(http_request "$@" 2>/dev/null | head -n 1) in *' 200 '*) return ;; esac
    sleep 0.05
  done
  echo "not ready in time" >&2
  return 1
}

# milliseconds SINCE, from the nanoseconds of date.
milliseconds() { echo $((($(date +%s%N) - $1) / 1000000)); }

# time_unit UNIT SECONDS ADDRESS PORT TEXT: starts it; milliseconds until its server is ready, and until systemd says so.
time_unit() {
  unit=$1
  shift
  systemctl stop "$unit" || return
  began=$(date +%s%N)
  systemctl start --no-block "$unit" && await_ready "$@" || return
  milliseconds "$began"
  systemctl start "$unit" && milliseconds "$began"
}

# time_bare UNIT NAME SECONDS ADDRESS PORT TEXT COMMAND...: the same for a container that docker run starts, in the unit's place.
time_bare() {
  systemctl stop "$1" || return
  bare=$2 seconds=$3 address=$4 port=$5 text=$6
  shift 6
  began=$(date +%s%N)
  "$@" >/dev/null && await_ready "$seconds" "$address" "$port" "$text" && milliseconds "$began"
  timed=$?
  docker rm --force "$bare" >/dev/null 2>&1
  return "$timed"
}

# kill_server CONTAINER: kills what its init runs.
kill_server() {
  init=$(docker inspect --format '{{.State.Pid}}' "$1") || return
  read -r servers <"/proc/$init/task/$init/children" || [ -n "$servers" ] || return
  # shellcheck disable=SC2086  # several processes
  kill -9 $servers
}

# time_recovery UNIT CONTAINER SECONDS ADDRESS PORT TEXT: kills the server; milliseconds until another one serves.
time_recovery() {
  unit=$1 container=$2
  shift 2
  began=$(date +%s%N)
  kill_server "$container" || return
  while systemctl is-active --quiet "$unit"; do sleep 0.1; done
  await_ready "$@" && systemctl start "$unit" && milliseconds "$began"
}

# served_since UNIT: boot id, seconds since boot, and the seconds since boot at which the unit became active.
served_since() {
  cat /proc/sys/kernel/random/boot_id
  cut -d' ' -f1 /proc/uptime
  [ -z "$1" ] || systemctl show --property=ActiveEnterTimestampMonotonic --value -- "$1"
}
