# shellcheck shell=sh
# needs: shell/dnf_state.sh
# What verify asks about the toolkit.

# toolkit_packages NAME...: state, name, version and selection of those that are installed; without dpkg, each lock has a
# line of its own.
toolkit_packages() {
  if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${db:Status-Want}\n' "$@"
  else
    rpm -q --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\n' "$@" | grep ^installed
    sed -n -E 's/^(.*)-[0-9]+:.*/installed \1 locked hold/p' "$locks"
  fi 2>/dev/null || :
}

# apt_targets: the addresses that apt makes of all files of sources; it reads them and fetches nothing.
apt_targets() {
  if command -v apt-get >/dev/null; then apt-get indextargets --format '$(REPO_URI)' 2>&1; fi
}

# ldconfigs FILE: which programs there are of the usual ldconfig and of that in this config.toml.
ldconfigs() {
  named=$(sed -n 's/^ldconfig *= *"@\([^"]*\)".*/\1/p' "$1" 2>/dev/null)
  for program in /sbin/ldconfig $named; do [ ! -x "$program" ] || echo "$program"; done
}
