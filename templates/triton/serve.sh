# shellcheck shell=sh
# needs: shell/own_units.sh shell/units.sh triton/instances.sh
# Starts of instances; two cannot have the same port.

# serve WORD UNIT SECONDS PORT...: start_unit or restart_unit; other instances that hold its ports stop for it. If it
# does not come up, they are started again.
serve() {
  word=$1 served=$2 patience=$3
  shift 3
  stopped=$(holders "$served" "$@")
  for other in $stopped; do
    say "$other is stopped: it holds a port of $served"
    systemctl stop -- "$other" || return
  done
  "$word" "$served" "$patience" && return
  failed=$?
  for other in $stopped; do
    # Both would want the port at the next boot, too.
    if publishes "$other" "$@"; then systemctl disable --quiet --now -- "$served"; fi
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

# enabled_anew UNIT: an enabled unit gets the links that its file asks for now.
enabled_anew() { ! systemctl is-enabled --quiet -- "$1" || systemctl enable --quiet -- "$1"; }
