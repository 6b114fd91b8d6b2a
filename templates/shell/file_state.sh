# shellcheck shell=sh
# What paths are on a host.

# Bytes of a file that are read for comparing and diffing.
largest_file=1048576

# The type of a symbolic link that points to nothing.
dangling='dangling link'

# path_states PATH...: two lines for each, links followed: type, mode, owner, group and size; and the content in base64.
path_states() {
  for f in "$@"; do
    if s=$(stat -L -c '%F|%a|%U|%G|%s' -- "$f" 2>/dev/null); then
      printf '%s\n' "$s"
      case $s in
        regular*) if [ "${s##*|}" -le "$largest_file" ]; then base64 -w0 -- "$f"; fi ;;
      esac
      echo
    elif [ -L "$f" ]; then
      printf '%s|777|root|root|0\n\n' "$dangling"
    else
      printf 'absent\n\n'
    fi
  done
}
