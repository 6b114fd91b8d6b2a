# shellcheck shell=sh
# needs: shell/docker_room.sh shell/archive.sh shell/progress.sh
# Images from a registry, or from archives.

# pull_image REF: loads an image from $archive if there is one, else pulls it.
pull_image() {
  if [ -n "${archive-}" ]; then
    load_archive "$1" "$archive"
    loaded=$?
    [ "$loaded" -eq 2 ] || return "$loaded"
  fi
  has_room "$1" "$(room_of "$1")" || return
  command -v script >/dev/null || { docker pull --quiet "$1"; return; }
  with_progress "the pull of $1" "$1" 'exec docker pull "$wanted"'
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
