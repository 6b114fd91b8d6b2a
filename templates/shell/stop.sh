# shellcheck shell=sh
# needs: shell/launch.sh
# The end of a run, for whoever asks: between two steps, or at once.

# Exit code where processes of a run do not end.
processes_left=69

# Seconds that a run has to end after each of the two signals.
end_patience=15

# find_run: sets $found to the run that is under way or about to begin, and goes to its folder.
find_run() {
  read -r found 2>/dev/null <"$run_lock" && [ -n "$found" ] && cd "$spool/$found" 2>/dev/null && [ -e script ] &&
    { [ ! -s pid ] || [ -n "$(active_run)" ]; }
}

# describe_run: the run, when it was started, the number of its step and what that is about; nothing without a run.
describe_run() {
  if find_run; then
    echo "$found $(date -u -r script +%Y-%m-%dT%H:%M:%SZ) $(grep '^start ' events | tail -n 1 | cut -d ' ' -f 2,3)"
  fi
}

# knows_run RUN: it has left something here, or what continued it has.
knows_run() { [ -n "$(ls -d "$spool/$1" "$spool/$1"-[0-9] "$spool/$1"-[0-9][0-9] 2>/dev/null)" ]; }

# stop_before_step RUN WHO: it ends before its next step.
stop_before_step() {
  find_run && [ "$found" = "$1" ] || exit "$run_is_gone"
  printf '%s\n' "$2" >stop.new && mv stop.new stop
}

# stop_now RUN: ends what runs of it. Package operations are never cut: each locks the file pid as long as it works.
stop_now() {
  find_run && [ "$found" = "$1" ] && [ -s pid ] || return 0
  unit=provision-$1.service
  if [ ! -d /run/systemd/system ]; then
    echo "no systemd runs here: the run ends before its next step"
    return
  fi
  exec 8<pid
  flock -n 8 || { echo "a package operation is under way, which is never cut: waiting for its end"; flock 8; }
  if ! unit_ends; then
    echo "it ignored SIGTERM for $end_patience s: its processes are killed"
    systemctl kill --signal=KILL "$unit"
    unit_ends || exit "$processes_left"
  fi
  rm -f script
}

# unit_ends: no process of $unit is left.
unit_ends() {
  timeout -k 5 "$end_patience" systemctl stop "$unit" 2>/dev/null
  case $(systemctl show --value -p ActiveState "$unit") in inactive | failed) ;; *) return 1 ;; esac
}
