# shellcheck shell=sh
# A run on its host: started detached, and followed from wherever somebody is.

# Folder of all runs; root-only, gone with a reboot.
spool=/run/provision

# Exit code where the run is unknown to the host.
run_is_gone=66

# Spools of earlier runs that stay for reading.
kept_runs=10

# launch RUN, its script on standard input: prints "busy OTHER" and starts nothing if another run is under way.
# The lock of a run whose process is gone is taken over; one whose process has not begun yet, after a minute.
launch() {
  umask 077
  # From the lock to the start of the script nothing may stop this, neither a lost connection nor an interrupt.
  trap '' HUP INT PIPE
  mkdir -p "$spool" && cd "$spool" || exit 1
  if ! mkdir lock 2>/dev/null; then
    other=$(cat lock/run 2>/dev/null)
    pid=$(cat "$other/pid" 2>/dev/null)
    if { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; } ||
      { [ -z "$pid" ] && [ -z "$(find lock -mmin +1 -prune)" ]; } ||
      ! mv -T lock "stale-$1" 2>/dev/null || ! mkdir lock 2>/dev/null; then
      echo "busy $other"
      exit 0
    fi
  fi
  echo "$1" >lock/run
  # shellcheck disable=SC2010,SC2012  # by time, which a glob does not give; we named them all
  ls -1t | grep -v -x lock | tail -n "+$kept_runs" | while IFS= read -r old; do rm -rf -- "$old"; done
  mkdir "$1" && : >"$1/events" || exit 1
  cat >"$1/script"
  if [ -d /run/systemd/system ]; then
    systemd-run --quiet --collect --unit="provision-$1" --description="provision run $1" \
      /bin/sh "$spool/$1/script" || { rm -rf lock; exit 1; }
  else
    # A child of this shell would stay as a zombie, for which tail waits.
    (setsid /bin/sh "$spool/$1/script" </dev/null >/dev/null 2>&1 &)
  fi
  trap - HUP INT PIPE
  follow "$1" 1
}

# follow RUN BYTE: prints the events of a run from this byte on, counted from 1, until the run is over.
follow() {
  cd "$spool/$1" || exit "$run_is_gone"
  tries=0
  while [ ! -s pid ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  pid=$(cat pid)
  last_words "$pid" &
  tail -c "+$2" -s 0.1 --pid="$pid" -f events
  kill $! 2>/dev/null
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

# active_run: prints the run that is under way, or nothing.
active_run() {
  read -r active 2>/dev/null <"$spool/lock/run" || return 0
  read -r pid 2>/dev/null <"$spool/$active/pid" && kill -0 "$pid" 2>/dev/null || return 0
  echo "$active"
}
