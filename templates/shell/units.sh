# shellcheck shell=sh
# needs: shell/files.sh
# systemd units.

# wait_until SECONDS COMMAND...
wait_until() {
  limit=$1
  shift
  until "$@"; do
    limit=$((limit - 1))
    if [ "$limit" -le 0 ]; then
      fail "still not so: $*"
      return
    fi
    sleep 1
  done
}

unit_is_up() {
  systemctl is-active --quiet -- "$1" || return
  case $(systemctl is-enabled -- "$1" 2>/dev/null) in
    enabled | enabled-runtime | static | indirect | generated | alias) ;;
    *) return 1 ;;
  esac
}

enable_unit() {
  case $(systemctl is-enabled -- "$1" 2>/dev/null) in
    static | indirect | generated | alias) ;;
    *) systemctl enable --quiet -- "$1" ;;
  esac
}

# start_unit UNIT SECONDS: waits until it is up; says what its journal says if it does not come up.
start_unit() {
  verb=start
  case $(systemctl show -p SubState --value -- "$1") in
    failed) systemctl reset-failed -- "$1" ;;
    # systemd waits for its own timer when a unit is started between two tries, so this does not.
    auto-restart*) verb=restart ;;
  esac
  run_unit "$verb" "$@"
}

# restart_unit UNIT SECONDS
restart_unit() { run_unit restart "$@"; }

run_unit() {
  since=$(date +%s)
  timeout "$3" systemctl "$1" -- "$2" && return
  code=$?
  [ "$code" -ne 124 ] || echo "$2 did not come up within $3 s"
  # The cause often stands far above the end. With --since, journalctl's own -n would show the first lines.
  journalctl --no-pager -o cat -u "$2" --since "@$since" | grep -v '^[+|]' >"$run/journal"
  grep -i -m 5 -E 'error|fail|unrecognized|invalid|denied|not found' "$run/journal"
  echo "..."
  tail -n 8 "$run/journal"
  return "$code"
}

# retire_unit FILE [BESIDE...]: a unit of ours that nobody declares any more, and the files that go with it.
retire_unit() {
  unit=${1##*/}
  systemctl disable --quiet --now -- "$unit"
  backup "$1" && rm -f -- "$1" && systemctl daemon-reload || return
  shift
  for beside in "$@"; do backup "$beside" && rm -f -- "$beside" || return; done
}
