# shellcheck shell=sh
# needs: shell/packages.sh shell/apt_state.sh
# Steps with Debian packages.

# apt_get ARGUMENT...: a package operation is never cut and has no time limit of its own; fetching indexes may be cut.
# It waits a while for locks that others hold.
apt_get() {
  waited=0 kept=uncut
  [ "$1" != update ] || kept=
  while :; do
    $kept apt-get -q -y -o DPkg::Lock::Timeout=0 -o Acquire::Retries=3 -o APT::Color=0 -o Dpkg::Use-Pty=0 \
      -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" 2>"$run/stderr"
    code=$?
    await_lock || break
  done
  cat "$run/stderr" >&2
  return "$code"
}

# dpkg_configure: ends what an earlier run of dpkg did not.
dpkg_configure() {
  waited=0
  while :; do
    uncut dpkg --configure -a --force-confdef --force-confold 2>"$run/stderr"
    code=$?
    await_lock || break
  done
  cat "$run/stderr" >&2
  return "$code"
}

# await_lock: waits a moment where what failed with $code failed at somebody's lock, so that it is worth another try.
await_lock() {
  [ "$code" -ne 0 ] || return
  lock=$(sed -n '/Could not get lock\|is another process using it\|locked by another process/{s/^[EW]: //;p;q}' "$run/stderr")
  [ -n "$lock" ] || return
  holder=$(printf '%s' "$lock" | sed -n 's/.*process \(with pid \)\{0,1\}\([0-9]\{1,\}\).*/\2/p')
  command=$(tr '\0' ' ' 2>/dev/null <"/proc/${holder:-none}/cmdline")
  if [ "$waited" -ge 120 ]; then
    fail "another package operation is under way, and did not end within $waited s: process ${holder:-unknown} ($command)"
    return
  fi
  [ "$waited" -gt 0 ] || say "waiting for another package operation: process ${holder:-unknown} ($command)"
  sleep 2
  waited=$((waited + 2))
}

# apt_reads NAME, a file for sources.list.d in base64 on standard input: the repository that it names answers, and its key
# has signed that. Other sources are not asked.
apt_reads() {
  rm -rf -- "$run/trial" && mkdir -- "$run/trial" && base64 -d >"$run/trial/$1" || return
  apt_get update -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$run/trial" -o APT::Get::List-Cleanup=false \
    -o APT::Update::Error-Mode=any
}

# apt_install [FLAG...] -- PACKAGE[=VERSION]...: with fresh indexes, and after what dpkg left undone.
apt_install() {
  if [ ! -e "$run/apt-is-fresh" ]; then
    apt_get update -o APT::Update::Error-Mode=any || return
    : >"$run/apt-is-fresh"
  fi
  if [ -n "$(dpkg --audit)" ] || ls /var/lib/dpkg/updates/[0-9]* >/dev/null 2>&1; then
    apt_mend || echo "what dpkg had left undone could not all be mended"
  fi
  apt_approved "$@"
}

# apt_mend: ends what an earlier run of dpkg did not. apt does none of this along with an installation.
apt_mend() {
  dpkg_configure && unmended= || unmended=$?
  half=$(dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' | sed -n 's/^half-installed //p')
  # shellcheck disable=SC2086  # names of packages are words
  [ -z "$half" ] || apt_approved --reinstall -- $half || unmended=$?
  [ -z "$unmended" ] || apt_approved --fix-broken
}

# apt_approved ARGUMENT...: installs, but removes nothing that $may_remove does not name, and moves no held package
# whose hold is not ours. apt itself would keep to all holds, also to ours.
apt_approved() {
  set -- -o APT::Ignore-Hold=true install --no-install-recommends --allow-change-held-packages "$@"
  apt-get -s -q -y "$@" >"$run/simulation" || return
  # shellcheck disable=SC2013  # names of packages are words
  for name in $(sed -n 's/^Remv \([^ ]*\).*/\1/p' "$run/simulation"); do
    among "$name" "${may_remove-}" || fail "apt would remove $name, which the plan did not show: plan again" || return
  done
  # shellcheck disable=SC2013
  for name in $(sed -n '/^The following held packages/,/^[^ ]/s/^  *//p' "$run/simulation"); do
    is_ours "${name%:*}" ||
      fail "$name is held by somebody, and apt would change it: apt-mark unhold $name" || return
  done
  apt_get "$@" && return
  code=$?
  explain_failure
  return "$code"
}

# package_state NAME: status, selection and version of the package of the host's own architecture.
package_state() {
  dpkg-query -W -f '${Architecture} ${db:Status-Status} ${db:Status-Want} ${Version}\n' "$1" 2>/dev/null |
    sed -n -e "s/^$(dpkg --print-architecture) //p" -e 's/^all //p'
}

# package_is NAME GLOB: installed, at a version that matches.
package_is() {
  found=$(package_state "$1")
  # shellcheck disable=SC2254  # the version is a pattern on purpose
  case $found in
    "installed "*" "$2) ;;
    "") fail "$1 is not installed, wanted $2" ;;
    "installed "*) fail "$1 is at version ${found##* }, wanted $2" ;;
    *) fail "$1 is ${found%% *} at version ${found##* }, wanted $2" ;;
  esac
}

# package_at_least NAME VERSION: installed, and not older.
package_at_least() {
  package_is "$1" '*' || return
  found=$(package_state "$1")
  dpkg --compare-versions "${found##* }" ge "$2" ||
    fail "$1 is at version ${found##* }, wanted at least $2: the repositories have no newer one"
}

# package_held NAME: it is on hold.
package_held() {
  case $(package_state "$1") in *" hold "*) ;; *) fail "$1 is not held" ;; esac
}

# hold_packages NAME...: and write down that these holds are ours.
hold_packages() { note_ours "$@" && uncut apt-mark hold "$@"; }

# packages_are_whole NAME...: all their files are as they came.
packages_are_whole() {
  damaged=$(damaged_debs "$@")
  [ -z "$damaged" ] || fail "$damaged"
}
