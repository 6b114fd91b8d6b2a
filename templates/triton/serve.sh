# shellcheck shell=sh
# needs: shell/own_units.sh shell/units.sh triton/instances.sh triton/rollback.sh
# Starts of instances; two cannot have the same port.

# serve WORD UNIT SECONDS PORT...: start_unit, restart_unit, or one of them that may go back to the previous version;
# other instances that hold its ports stop for it. If it does not come up, they are started again, and this says why first.
serve() {
  word=$1 served=$2 patience=$3 went_back='' told=''
  shift 3
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

# publishes UNIT PORT...: its file asks for one of these ports.
publishes() {
  file=$unit_folder/$1
  shift
  for port in "$@"; do
    ! grep -q -e "--publish=.*:$port:" "$file" || return 0
  done
  return 1
}
