# shellcheck shell=sh
# needs: shell/environment.sh shell/files.sh shell/lock.sh shell/record.sh shell/units.sh
# What every plan's script begins with: how steps run.
# $run is the folder of this run: root-only, with a log for each step and the events that a controller follows.

set_environment
export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_MODE=l HOME=/root
umask 077
cd / || exit 1

# Folder with a note for each handler that is owed.
owed=/var/lib/provision/owed

now() { date +%s%3N || echo 0; }
# since MILLISECONDS: how long ago that was; 0 where the clock does not tell, as it was set meanwhile.
since() {
  passed=$(($(now) - $1))
  if [ "$passed" -lt 0 ] || [ "$passed" -ge 100000000 ]; then passed=0; fi
  echo "$passed"
}
event() { printf '%s\n' "$*" >>"$run/events"; }
encode() { base64 -w0; }
fail() { echo "$*" >&2; return 1; }

# tell_shutdown: says so where the host is going down, which ends what runs on it.
tell_shutdown() {
  [ "$(systemctl is-system-running 2>/dev/null)" != stopping ] || echo "the host is being shut down or rebooted"
}

# say TEXT: to whoever follows the run.
say() {
  echo "$1"
  event say "$(printf '%s' "$1" | encode)"
}

# owe NOTE...: from now on these are owed; a step whose debts cannot be noted changes nothing.
owe() {
  for note in "$@"; do
    [ ! -e "$owed/$note" ] || continue
    # In a shell of its own, which the failure of a special builtin's redirection ends.
    (: >"$owed/$note") || return
    debts="$debts $note"
  done
}

# nothing_done: a step that fails before it changes anything owes nothing for it.
nothing_done() { for note in $debts; do rm -f "$owed/$note"; done; }

# none_owed NOTE...: a step that has nothing to do may still have to do the work of a handler.
none_owed() {
  for note in "$@"; do [ ! -e "$owed/$note" ] || return; done
}

# step N NAME OWES SETTLES: runs guard_N, do_N and done_N, and tells what became of it.
step() {
  [ ! -e "$run/stop" ] || exit 0
  event start "$1" "$(printf '%s' "$2" | encode)"
  began=$(now)
  # shellcheck disable=SC2086  # names of notes, which hold no blanks
  if none_owed $4 && ("done_$1") </dev/null >/dev/null 2>&1 9>&-; then
    event skip "$1"
    return
  fi
  if ! ("guard_$1") </dev/null >"$run/$1.log" 2>&1 9>&-; then
    event fail "$1" guard 0 "$(tail -n 20 "$run/$1.log" | tail -c 8000 | encode)"
    finish failed
  fi
  debts=
  # shellcheck disable=SC2086  # names of notes, which hold no blanks
  if ! owe $3 2>"$run/$1.log"; then
    nothing_done
    event fail "$1" 1 0 "$(encode <"$run/$1.log")"
    finish failed
  fi
  ("do_$1") </dev/null >"$run/$1.log" 2>&1 9>&-
  code=$?
  took=$(since "$began")
  if [ "$code" -ne 0 ]; then
    tell_shutdown >>"$run/$1.log"
    event fail "$1" "$code" "$took" "$(tail -n 20 "$run/$1.log" | tail -c 8000 | encode)"
    finish failed
  fi
  for note in $4; do rm -f "$owed/$note"; done
  if ! ("done_$1") </dev/null >>"$run/$1.log" 2>&1 9>&-; then
    event fail "$1" unproven "$took" "$(tail -n 20 "$run/$1.log" | tail -c 8000 | encode)"
    finish failed
  fi
  event ok "$1" "$took"
}

# reboot_step N NAME OWES: the last step of its script, unless the host was booted since the plan; what comes after
# is planned again when the host is back.
reboot_step() {
  [ ! -e "$run/stop" ] || exit 0
  event start "$1" "$(printf '%s' "$2" | encode)"
  began=$(now)
  if ("done_$1") </dev/null >/dev/null 2>&1 9>&-; then
    event skip "$1"
    return
  fi
  # shellcheck disable=SC2086  # names of notes, which hold no blanks
  if ! { owe $3 && ("do_$1") </dev/null 9>&-; } >"$run/$1.log" 2>&1; then
    event fail "$1" 1 "$(since "$began")" "$(tail -n 20 "$run/$1.log" | tail -c 8000 | encode)"
    finish failed
  fi
  event ok "$1" "$(since "$began")"
  finish rebooting
}

# reboot_soon REASON: in a moment, so that whoever follows this run still reads how it ended.
reboot_soon() {
  systemd-run --quiet --collect --on-active=2 --timer-property=AccuracySec=100ms \
    --description="reboot by provision" systemctl reboot --message="provision: $1"
}

# booted_since BOOT_ID
booted_since() { [ "$(cat /proc/sys/kernel/random/boot_id)" != "$1" ]; }

finish() {
  (prune_backups) || say "old backups could not be removed from $backups"
  [ "$1" != ok ] || (forget_gone) || say "$record could not be written"
  give_back "$1"
  trap - EXIT
  exit 0
}

# give_back STATUS: what the run held, after its last event. Where somebody asked for the end of the run, the file stop
# says who.
give_back() {
  if [ "$1" = interrupted ] && [ -e "$run/stop" ]; then set -- stopped "$(encode <"$run/stop")"; fi
  event end "$@"
  rm -f "$run/script"
  : >"$run_lock"
}

# begin: with the lock that was taken for this run; another run may have been started before this script was.
begin() {
  if ! { lock_is_of "${run##*/}" && take_lock 60 && lock_is_of "${run##*/}"; }; then
    rm -f "$run/script"
    event end overtaken "$(head -n 1 "$run_lock" | encode)"
    exit 1
  fi
  echo $$ >"$run/pid"
  trap 'give_back interrupted' EXIT
  trap 'exit 143' HUP INT TERM
  mkdir -p "$owed"
}

not_owed() { [ ! -e "$owed/$1" ]; }
