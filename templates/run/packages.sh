# shellcheck shell=sh disable=SC2154,SC2016
# Packages.

# A package operation is never cut: it waits for locks that others hold, and has no time limit of its own.
apt_get() {
  apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o APT::Color=0 -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# apt_install [FLAG...] -- PACKAGE[=VERSION]...
apt_install() {
  if [ -n "$(dpkg --audit)" ]; then dpkg --configure -a --force-confdef --force-confold || return; fi
  if [ ! -e "$run/apt-is-fresh" ]; then
    apt_get update -o APT::Update::Error-Mode=any || return
    : >"$run/apt-is-fresh"
  fi
  apt_get install --no-install-recommends --allow-change-held-packages "$@"
}

# package_is NAME GLOB: installed, at a version that matches.
package_is() {
  found=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return
  # shellcheck disable=SC2254  # the version is a pattern on purpose
  case $found in "installed "$2) ;; *) fail "$1 is $found, wanted $2" ;; esac
}

# package_held NAME
package_held() { [ "$(dpkg-query -W -f '${db:Status-Want}' "$1" 2>/dev/null)" = hold ]; }
