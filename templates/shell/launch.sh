# shellcheck shell=sh
# needs: shell/lock.sh
# A run on its host: started detached, and followed from wherever somebody is.

# Folder of all runs; root-only, gone with a reboot.
spool=/run/provision

# Exit code where the run is unknown to the host.
run_is_gone=66

# Exit code where the run was not started.
run_not_started=67

# Exit code where what followed a run was killed, and the run may go on.
run_not_followed=68

# Spools of earlier runs that stay for reading.
kept_runs=10

# Bytes in which all events of a run find room.
events_size=262144

# Bytes that logs of steps find free when a run is started.
logs_size=1048576

# Seconds after which a run is ended, as by an interrupt.
longest_run=14400

# launch RUN, its script on standard input: prints "busy OTHER" and starts nothing if another run is under way. Whoever
# has just taken the lock has a moment to say which run that is.
launch() {
  umask 077
  # From the lock to the start of the script nothing may stop this, neither a lost connection nor an interrupt.
  trap '' HUP INT PIPE
  mkdir -p "$spool" && cd "$spool" || exit "$run_not_started"
  tries=0
  until take_lock 1; do
    [ -f lock ] || exit "$run_not_started"
    if [ -s lock ] || [ "$tries" -ge 5 ]; then
      echo "busy $(cat lock)"
      exit 0
    fi
    tries=$((tries + 1))
  done
  : >lock
  if [ -e "$1" ]; then
    echo "the same run was here already, for another name" >&2
    exit "$run_not_started"
  fi
  # shellcheck disable=SC2010,SC2012  # by time, which a glob does not give; we named them all
  ls -1t | grep -v -x lock | tail -n "+$kept_runs" | while IFS= read -r old; do rm -rf -- "$old"; done
  # A run that was killed left what may hold secrets.
  for begun in ./*/pid; do rm -rf -- "${begun%pid}script" "${begun%pid}docker-login"; done
  if ! put_script "$1" || ! echo "$1" >lock || ! start_script "$1"; then
    : >lock
    rm -rf -- "${spool:?}/$1"
    exit "$run_not_started"
  fi
  exec 9>&-
  trap - HUP INT PIPE
  follow "$1" 1
}

# put_script RUN: all of standard input as the script, and room for its events and logs; or nothing is to be started.
put_script() {
  mkdir "$1" && cat >"$1/script" && : >"$1/events" && fallocate --keep-size --length "$events_size" "$1/events" &&
    fallocate --length "$logs_size" "$1/room" && rm "$1/room"
}

# start_script RUN: which takes the lock over.
start_script() {
  if [ -d /run/systemd/system ]; then
    systemd-run --quiet --collect --unit="provision-$1" --description="provision run $1" \
      --property=RuntimeMaxSec="$longest_run" \
      --property=ExecStopPost="/bin/rm -rf $spool/$1/script $spool/$1/docker-login" /bin/sh "$spool/$1/script" 9>&-
  else
    # A child of this shell would stay as a zombie, for which tail waits.
    (setsid timeout -k 90 "$longest_run" /bin/sh "$spool/$1/script" </dev/null >/dev/null 2>&1 9>&- &)
  fi
}

# follow RUN BYTE: prints the events of a run from this byte on, counted from 1, until the run is over.
follow() {
  cd "$spool/$1" || exit "$run_is_gone"
  tries=0
  while [ ! -s pid ] && [ ! -s events ] && [ "$tries" -lt 1000 ]; do sleep 0.1; tries=$((tries + 1)); done
  [ "$tries" -lt 1000 ] || echo "its script did not begin" >&2
  # A child of this shell would stay as a zombie; and one that held a stream open would be waited for.
  waiter=$( ( (exec >/dev/null 2>&1; await_end "$1") & echo $! ) )
  last_words "$waiter" &
  tail -c "+$2" -s 0.1 --pid="$waiter" -f events
  told=$?
  kill $! 2>/dev/null
  if [ "$told" -ne 0 ] || { lock_is_of "$1" && ! flock -n -s "$run_lock" true; }; then exit "$run_not_followed"; fi
  if grep -q '^end ' events; then return; fi
  [ ! -e stop ] || printf 'end stopped %s\n' "$(base64 -w0 <stop)"
  echo "its script was killed" >&2
}

# await_end RUN: until the run has given its lock back, or nobody follows it any more.
await_end() {
  while kill -0 $$ && lock_is_of "$1" && ! flock -s -w 5 "$run_lock" true; do :; done
}

# last_words PID: while this process lives, prints the last line of the newest log whenever it is another one.
# The sleep does not hold the streams open, for whose end sshd waits.
last_words() {
  told=
  while sleep 2 >/dev/null 2>&1 && kill -0 "$1" 2>/dev/null; do
    # shellcheck disable=SC2012  # by time, which a glob does not give; their names are numbers
    log=$(ls -t ./*.log 2>/dev/null | head -n 1)
    words=$(tail -c 1000 "${log:-/dev/null}" | tr '\r' '\n' | sed -n '/[^[:space:]]/h;${g;p}' | cut -b 1-300 | base64 -w0)
    [ "$words" = "$told" ] || printf 'out %s\n' "$words"
    told=$words
  done
}
