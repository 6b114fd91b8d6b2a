# shellcheck shell=sh
# Who carries out a run on a host: one process at a time. It holds the lock as long as it lives, however it ends.

# Locked by flock(1) while a run is under way, and holds its id.
run_lock=/run/provision/lock

# take_lock SECONDS: takes the lock with descriptor 9, if it is free within these seconds; a lock in any other form than
# a file is nobody's.
take_lock() {
  [ -f "$run_lock" ] || rm -rf "$run_lock"
  true >>"$run_lock" || return
  exec 9>>"$run_lock" && flock -w "$1" 9
}

# lock_is_of RUN
lock_is_of() { read -r named <"$run_lock" && [ "$named" = "$1" ]; }

# active_run: prints the run that is under way, or nothing. A pipe would be read for ever.
active_run() {
  [ -f "$run_lock" ] || return 0
  read -r active 2>/dev/null <"$run_lock" || return 0
  flock -n -s "$run_lock" true 2>/dev/null || echo "$active"
}
