# shellcheck shell=sh
# needs: shell/files.sh
# Sources of packages that go.

# remove_sources FILE...: what apt or dnf knew of them has to be asked for again.
remove_sources() {
  for source in "$@"; do backup "$source" && rm -f -- "$source" || return; done
  rm -f "$run/apt-is-fresh"
}
