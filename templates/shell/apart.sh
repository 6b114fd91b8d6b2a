# shellcheck shell=sh
# A command of a check among others: it may end its shell, and leave something running behind.

# apart SECONDS COMMAND: runs it in a shell of its own, with a deadline, until all that it has left behind has closed its
# output; so nothing of it turns up in the answers to other questions.
apart() {
  apart_code=$({ { {
    timeout -k 5 "$1" /bin/sh -c "$2" 3>&- 4>&- 5>&-
    echo $? >&5
  } | cat >&3; } 2>&1 | cat >&4; } 5>&1)
  return "$apart_code"
} 3>&1 4>&2
