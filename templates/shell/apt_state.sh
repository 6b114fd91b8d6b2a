# shellcheck shell=sh
# needs: shell/packages.sh shell/lines.sh
# What dpkg knows of packages.

# deb_states NAME...: the packages that we hold, an empty line, and a line with tabs for each package that dpkg knows;
# dpkg itself is one of them, as its architecture is the host's. Names may be globs. dpkg-query fails when it does not
# know one, and prints the others.
deb_states() {
  lines_of "$held"
  echo
  dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n' dpkg "$@"
}
