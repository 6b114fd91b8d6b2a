# shellcheck shell=sh
# HTTP from a host to itself: bash speaks TCP, so the host needs no curl.

# Seconds that an answer may take.
http_patience=15

# Bytes of an answer to a request of the settings' canaries: what they expect is far less.
# shellcheck disable=SC2034  # for those that have this text
canary_most=1048576

# http_request ADDRESS PORT TEXT: sends the text of a request and prints the raw answer; with $http_most, so many bytes
# and those of a head.
http_request() {
  # shellcheck disable=SC2016  # the inner shell's
  timeout -k 5 "$http_patience" bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf %s "$3" >&3 &&
    if [ -n "$4" ]; then head -c "$(($4 + 65536))"; else cat; fi <&3' http "$1" "$2" "$3" "${http_most-}"
}
