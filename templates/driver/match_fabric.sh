# shellcheck shell=sh
# needs: shell/apt.sh shell/dnf.sh
# The Fabric Manager at the driver's version.

# upstream_version PACKAGE: NVIDIA's version of an installed package, without epoch and packaging suffix.
upstream_version() {
  if command -v dpkg-query >/dev/null; then
    found=$(package_state "$1") found=${found##* } found=${found#*:}
    printf '%s\n' "${found%%-*}"
  else
    rpm -q --qf '%{VERSION}\n' "$1" 2>/dev/null | grep '^[0-9]'
  fi
}

# fabric_manager_matches PACKAGE PROOF: of the same version as the package PROOF, which is the driver's.
fabric_manager_matches() {
  manager=$(upstream_version "$1") driver=$(upstream_version "$2")
  if [ -z "$manager" ] || [ "$manager" != "$driver" ]; then
    fail "$1 is at ${manager:-no version}, the driver at ${driver:-none}; both must be the same"
  fi
}

# match_fabric_manager PACKAGE PROOF [hold]
match_fabric_manager() {
  driver=$(upstream_version "$2")
  [ -n "$driver" ] || fail "$2 is not installed, so the driver's version is not known" || return
  if command -v apt-get >/dev/null; then
    apt_install "$1" --allow-downgrades -- "$1=$driver-*" || return
    [ -z "${3-}" ] || hold_packages "$1" || return
  else
    dnf_install "$1" "$1-$driver" || return
    [ -z "${3-}" ] || lock_rpms "$1" || return
  fi
  # It works with one version of the driver only, so it is started anew with this one.
  if systemctl is-active --quiet nvidia-fabricmanager.service; then
    systemctl restart nvidia-fabricmanager.service
  fi
}
