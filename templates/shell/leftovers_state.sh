# shellcheck shell=sh
# needs: shell/file_state.sh shell/own_units.sh shell/dockerd.sh
# What there is to say of what goes.

# about_leftovers "PACKAGE..." "IMAGE..." PATH...: what removes images and packages; a line for each package and image that
# is on the host, and for each unit that runs; then the contents of the files that everybody may read.
about_leftovers() {
  echo "image-tool docker image rm"
  if command -v dpkg-query >/dev/null; then echo "package-tool apt-get purge"; else echo "package-tool dnf remove"; fi
  for name in $1; do
    if dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -q '^installed' || rpm -q "$name" >/dev/null 2>&1; then
      echo "package $name"
    fi
  done
  for name in $2; do
    ! docker_says image inspect "$name" >/dev/null 2>&1 || echo "image $name"
  done
  shift 2
  for path in "$@"; do
    shift
    [ "${path%/*}" != "$unit_folder" ] || ! systemctl is-active --quiet -- "${path##*/}" || echo "runs ${path##*/}"
    [ -z "$(find "$path" -type f -perm -o=r 2>/dev/null)" ] || set -- "$@" "$path"
  done
  [ $# -eq 0 ] || contents "$@"
}
