# shellcheck shell=sh
# needs: shell/own_units.sh shell/units.sh triton/instances.sh triton/rollback.sh
# Starts of instances; two cannot have the same port.

# serve WORD UNIT SECONDS PORT...: start_unit, restart_unit, or one of them that may go back to the previous version;
# other instances that hold its ports stop for it. If it does not come up, they are started again, and this says why first.
serve() {
  word=$1 served=$2 patience=$3 went_back='' told=''
  shift 3
  settle_debt "$served"
  await_containers "$served"
  stopped=$(holders "$served" "$@")
  for other in $stopped; do
    say "$other is stopped: it holds a port of $served"
    systemctl stop -- "$other" || return
  done
  : >"$run/journal"
  "$word" "$served" "$patience" >"$run/start" 2>&1 && { forget_version "$served"; return; }
  failed=$?
  printf '%s\n' "${told:-$served did not get ready: $(reason_in "$run/journal")}"
  tail -n 9 "$run/start"
  for other in $stopped; do
    # Both would want the port at the next boot, too; the previous version has another one.
    if [ -z "$went_back" ] && publishes "$other" "$@"; then systemctl disable --quiet --now -- "$served"; fi
    systemctl start --no-block -- "$other" && echo "$other is started again"
  done
  return "$failed"
}

# settle_debt UNIT: a restart that it was owed before its last start is not owed any more.
# shellcheck disable=SC2154  # the steps set $owed
settle_debt() {
  note=$owed/restart-$1
  [ ! -e "$note" ] || ! is_settled "$note" "$1" || rm -f -- "$note"
}

# await_containers UNIT: until the other instances that are being started have their containers, which alone tell what
# ports they take. A restart of Docker starts all of them again, and waits for none. One at a gate may wait for long.
await_containers() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    ran=" $(instances | cut -d' ' -f1 | tr '\n' ' ')" without=
    for starting in $(starting_units); do
      case "$ran" in *" $starting "*) continue ;; esac
      [ "$starting" = "$1" ] || without=$starting
    done
    [ -n "$without" ] || return 0
    sleep 2
  done
}

# starting_units: instances that are being started, or are to be; not those that wait for another try.
starting_units() {
  systemctl show -p Id -p ActiveState -p SubState -p Job -- 'triton@*.service' | {
    id='' active='' sub='' job=''
    while read -r line || [ -n "$id" ]; do
      case $line in
        Id=*) id=${line#*=} ;;
        ActiveState=*) active=${line#*=} ;;
        SubState=*) sub=${line#*=} ;;
        Job=*) job=${line#*=} ;;
        *)
          case $active:$sub:${job:-0} in
            activating:auto-restart:*) ;;
            activating:* | inactive:*:[1-9]* | failed:*:[1-9]* | deactivating:*:[1-9]*) echo "$id" ;;
          esac
          id='' active='' sub='' job=''
          ;;
      esac
    done
  }
}

# publishes UNIT PORT...: its file asks for one of these ports.
publishes() {
  file=$unit_folder/$1
  shift
  for port in "$@"; do
    ! grep -q -e "--publish=.*:$port:" "$file" || return 0
  done
  return 1
}
