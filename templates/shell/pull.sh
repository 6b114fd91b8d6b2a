# shellcheck shell=sh
# Images from a registry, which may go silent in the middle.

# Seconds in which a pull has to make progress: bytes that arrive, or are unpacked.
pull_patience=300

# pull_image REF: pulls an image; ends where there is no progress. Docker's client tells of progress on a terminal only,
# which script(1) is for it; where that is not installed, the time of the whole run is the limit.
pull_image() {
  command -v script >/dev/null || { docker pull --quiet "$1"; return; }
  told=$run/pulling seen=0 idle=0
  : >"$told"
  pulled=$1 SHELL=/bin/sh script -q -e -c 'exec docker pull "$pulled"' /dev/null </dev/null >>"$told" 2>&1 &
  pull=$!
  while sleep 2 && kill -0 "$pull" 2>/dev/null; do
    size=$(wc -c <"$told")
    if [ "$size" -gt "$seen" ]; then
      last_lines 1 "$told"
      # What was seen takes no more room in memory.
      [ "$seen" -eq 0 ] || fallocate --punch-hole --offset 0 --length "$seen" "$told"
      seen=$size idle=0
    elif idle=$((idle + 2)) && [ "$idle" -ge "$pull_patience" ]; then
      kill "$pull"
      wait "$pull"
      fail "no progress in $pull_patience s: the pull of $1 was ended"
      return 1
    fi
  done
  wait "$pull"
  code=$?
  last_lines 5 "$told"
  rm -f "$told"
  return "$code"
}

# pull_as REF, a configuration of Docker's client in base64 on standard input: pulls with the login that it holds.
pull_as() {
  DOCKER_CONFIG=$run/docker-login
  export DOCKER_CONFIG
  mkdir -p "$DOCKER_CONFIG" && base64 -d >"$DOCKER_CONFIG/config.json" && pull_image "$1"
  ended=$?
  rm -rf -- "$DOCKER_CONFIG"
  return "$ended"
}

# last_lines COUNT FILE: of what was written to a terminal, without what steers it.
last_lines() {
  tail -c 20000 "$2" | tr -d '\0' | tr '\r' '\n' | sed "s/$(printf '\033')\[[0-9;?]*[A-Za-z]//g" | grep '[^[:space:]]' | tail -n "$1"
}
