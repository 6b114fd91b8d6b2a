# shellcheck shell=sh
# The Fabric Manager of hosts with NVSwitches: what is installed.

# What every package of it brings.
fabric_manager_program=/usr/bin/nv-fabricmanager

# fabric_versions_debian PROOF: versions of the package PROOF and of all Fabric Managers, of all branches, where there
# is any: a line for each with name, version and state.
fabric_versions_debian() {
  [ -e "$fabric_manager_program" ] || return 0
  dpkg-query -W -f '${Package}\t${Version}\t${db:Status-Status}\n' \
    "$1" nvidia-fabricmanager 'nvidia-fabricmanager-[0-9]*' nvidia-fabric-manager 2>/dev/null || :
}

# fabric_versions_rhel PROOF: the same on RHEL, where all that is listed is installed.
fabric_versions_rhel() {
  [ -e "$fabric_manager_program" ] || return 0
  rpm -q --qf '%{NAME}\t%{VERSION}\n' "$1" nvidia-fabricmanager nvidia-fabric-manager | grep -F "$(printf '\t')" || :
}
