# shellcheck shell=sh
# needs: shell/packages.sh
# What rpm and dnf know of packages, their locks and their module streams.

# Where dnf keeps which stream of a module is enabled, a file for each module.
streams=/etc/dnf/modules.d

# Where dnf's versionlock plugin keeps its locks, a line each: NAME-EPOCH:VERSION-RELEASE.*
locks=/etc/dnf/plugins/versionlock.list

# The package that makes dnf heed the locks.
# shellcheck disable=SC2034  # used by steps, and by Python
lock_plugin=python3-dnf-plugin-versionlock

# rpm_states "MODULE..." NAME...: the machine, the packages that we hold, all locks, the files of the modules, and a
# line with tabs for each installed instance of the packages. Names may be globs.
rpm_states() {
  echo "machine $(uname -m)"
  list_ours || return
  prefixed lock "$locks"
  for module in $1; do prefixed module "$streams/$module.module"; done
  shift
  rpm -qa --qf 'rpm %{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n' "$@"
}
