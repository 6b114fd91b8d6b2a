# shellcheck shell=sh
# needs: shell/apt_state.sh shell/dnf_state.sh
# Installed packages and their files, as verification sees them.

# installed_packages NAME...: state, name, version and, where it is held, hold; without dpkg, each lock has a line of its
# own. Names may be globs.
installed_packages() {
  if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${db:Status-Want}\n' "$@"
  else
    rpm -qa --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\n' "$@"
    sed -n -E 's/^(.*)-[0-9]+:.*/installed \1 locked hold/p' "$locks"
  fi 2>/dev/null || :
}

# damaged_files NAME...: "missing" or "changed" and its path for each file of these packages that is not as it came,
# but for configuration and documentation.
damaged_files() {
  if command -v dpkg >/dev/null; then dpkg --verify "$@"; else rpm -V --nodeps --noscripts "$@"; fi 2>/dev/null |
    sed -n -E '/\/usr\/share\//d; s/^missing +(\/.*)$/missing \1/p; s/^..5[^ ]* +(\/.*)$/changed \1/p'
}

# lost_files NAME...: programs and libraries of these packages that are not there. Nothing is read of them, since a
# driver has hundreds of megabytes. Names may be globs; those of containers' packages are left out.
lost_files() {
  if command -v dpkg-query >/dev/null; then
    list='dpkg-query -L' names=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" | sed -n 's/^installed //p')
  else
    list='rpm -ql' names=$(rpm -qa "$@")
  fi 2>/dev/null
  # shellcheck disable=SC2046,SC2086  # names are words
  $list $(echo "$names" | grep -v container) 2>/dev/null | grep -E '^(/usr)?/(lib|lib64|bin|sbin)/' |
    while read -r path; do [ -e "$path" ] || [ -L "$path" ] || echo "$path"; done
}

# changed_files NAME...: files of these packages that have other content than they came with, of those that are younger
# than their installation; without dpkg none is told. Names may be globs; those of containers' packages are left out.
changed_files() {
  command -v dpkg-query >/dev/null || return 0
  damaged_debs "$@" | while read -r _ package path; do
    case $package in *container*) continue ;; esac
    [ ! -e "$path" ] || echo "$path"
  done
}
