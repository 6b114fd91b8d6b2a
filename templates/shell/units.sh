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

# counts_no_restarts UNIT: systemd has not started it again by itself since somebody started it.
counts_no_restarts() {
  case $(systemctl show -p NRestarts --value -- "$1") in '' | 0) ;; *) return 1 ;; esac
}

enable_unit() {
  case $(systemctl is-enabled -- "$1" 2>/dev/null) in
    static | indirect | generated | alias) ;;
    *) systemctl enable --quiet -- "$1" ;;
  esac
}

# start_unit UNIT SECONDS: waits until it is up. A unit that is owed a restart is restarted, whatever it is doing: an
# attempt that is under way has read the old files.
# shellcheck disable=SC2154  # the steps set $owed
start_unit() {
  verb=start
  # systemd waits for its own timer when a unit is started between two tries, so this does not.
  case $(systemctl show -p SubState --value -- "$1") in auto-restart*) verb=restart ;; esac
  if [ -e "$owed/restart-$1" ]; then verb=restart; fi
  run_unit "$verb" "$@" && rm -f -- "$owed/restart-$1"
}

# restart_unit UNIT SECONDS
restart_unit() { run_unit restart "$@"; }

# run_unit VERB UNIT SECONDS: says what its journal says if it does not come up. A start that is wanted does not count
# against the unit's limit of starts.
run_unit() {
  since=$(date +%s)
  systemctl reset-failed -- "$2" 2>/dev/null
  timeout -k 5 "$3" systemctl "$1" -- "$2" && { was_started "$2"; return; }
  code=$?
  [ "$code" -ne 124 ] || echo "$2 did not come up within $3 s"
  # The cause often stands far above the end. With --since, journalctl's own -n would show the first lines.
  journalctl --no-pager -o cat -u "$2" --since "@$since" |
    grep -v -e '^[+|]' -e '^time=.* level=\(debug\|info\|warning\) ' >"$run/journal"
  grep -i -m 5 -E 'error|fail|unrecognized|invalid|denied|not found' "$run/journal"
  echo "..."
  tail -n 8 "$run/journal"
  return "$code"
}

# was_started UNIT: systemctl also succeeds where a condition of the unit keeps systemd from starting it.
was_started() {
  ! systemctl is-active --quiet -- "$1" || return 0
  [ "$(systemctl show -p ConditionResult --value -- "$1")" = no ] || return 0
  systemctl status --no-pager -n 0 -- "$1" | grep -i 'condition\|was not met'
  fail "$1 was not started: a condition in its unit files is not met"
}

# retire_unit FILE [BESIDE...]: a unit of ours that nobody declares any more, the files that go with it, and what it is owed.
retire_unit() {
  unit=${1##*/}
  systemctl disable --quiet --now -- "$unit"
  remove_file "$1" && systemctl daemon-reload || return
  # systemd lists a unit that failed until somebody says that it need not.
  systemctl reset-failed -- "$unit" 2>/dev/null
  shift
  for beside in "$@"; do remove_file "$beside" || return; done
  rm -f -- "$owed/restart-$unit" "$owed/wait-for-$unit"
}
