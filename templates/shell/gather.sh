# shellcheck shell=sh
# Many probes in one script: each runs in a subshell, and at the end one wc and one cat send all that they printed.

# begin_gathering: the outputs are files of a folder that only this user can read.
begin_gathering() {
  gather_dir=$(mktemp -d /run/provision-gather.XXXXXX 2>/dev/null || mktemp -d) || exit 1
  trap 'rm -rf "$gather_dir"' EXIT
  trap 'echo "probe $gather_at" >&2; exit 143' HUP INT TERM
  gather_codes=
}

# ask NUMBER SCRIPT. The probe runs in the background and is waited for, because sh puts off traps while a foreground
# command runs: so a probe that hangs, even one that cannot be killed (a driver that does not return), leaves no files.
ask() {
  gather_at=$1
  (eval "$2") </dev/null >"$gather_dir/$1.out" 2>"$gather_dir/$1.err" &
  wait $!
  gather_codes="$gather_codes $?"
}

# send_answers FILE...: exit codes, sizes, then the outputs.
send_answers() {
  cd "$gather_dir" || exit 1
  echo "$gather_codes"
  wc -c "$@" && cat "$@"
}
