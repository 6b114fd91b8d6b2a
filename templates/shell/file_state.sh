# shellcheck shell=sh
# What paths are on a host, and what is in files, with one program for all of them.

# Bytes of a file that are read for comparing and diffing.
largest_file=1048576

# path_states PATH...: a word with a letter for each path: absent, dangling link, regular file, link to one, or other. Then
# for each of the last three a line: type, mode, owner, group and size, links followed. Then the contents of regular files.
path_states() {
  letters='' regular=0
  for path in "$@"; do
    shift
    if [ -f "$path" ]; then
      if [ -L "$path" ]; then letters=${letters}l; else letters=${letters}r; fi
      regular=$((regular + 1))
      set -- "$@" "$path"
    elif [ -e "$path" ]; then
      letters=${letters}o
      set -- "$@" "$path"
    elif [ -L "$path" ]; then
      letters=${letters}d
    else
      letters=${letters}a
    fi
  done
  echo "$letters"
  [ $# -eq 0 ] || stat -L -c '%F|%a|%U|%G|%s' -- "$@" || return
  for path in "$@"; do
    shift
    [ ! -f "$path" ] || set -- "$@" "$path"
  done
  [ "$regular" -eq 0 ] || contents "$@"
}

# contents FILE...: each below a line with its path; an empty line between two of them.
contents() { head -v -c "$largest_file" -- "$@"; }
