# shellcheck shell=sh
# HTTP from a host to itself: bash speaks TCP, so the host needs no curl.

# Seconds that an answer may take.
http_patience=15

# http_request ADDRESS PORT TEXT: sends the text of a request and prints the raw answer.
http_request() {
  # shellcheck disable=SC2016  # the inner shell's
  timeout -k 5 "$http_patience" bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf %s "$3" >&3 && cat <&3' http "$1" "$2" "$3"
}
