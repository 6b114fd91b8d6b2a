# shellcheck shell=sh
# Many probes in one script. After each of them a line with a mark ends its section of both streams, so sections may
# hold any bytes, nothing is written to disk, and the marks that have arrived tell which probe is running.

# ask SCRIPT: in a subshell, which the probe may leave or change as it likes.
ask() {
  (eval "$1") </dev/null
  end_section $?
}

# ask_in_place SCRIPT: in this shell, for a probe that leaves it as it is.
ask_in_place() {
  { eval "$1"; } </dev/null
  end_section $?
}

# end_section CODE: the mark, and on standard output the exit code of the probe.
# shellcheck disable=SC2154  # the script sets it
end_section() {
  printf '%s %s\n' "$gather_mark" "$1"
  printf '%s\n' "$gather_mark" >&2
}
