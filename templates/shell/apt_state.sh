# shellcheck shell=sh
# needs: shell/packages.sh
# What dpkg knows of packages.

# deb_states NAME...: the host's architecture, the packages that we hold, an empty line, and a line with tabs for each
# package that dpkg knows. Names may be globs. dpkg-query fails when it does not know one, and prints the others.
deb_states() {
  dpkg --print-architecture
  cat "$held" 2>/dev/null
  echo
  dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n' "$@"
}
