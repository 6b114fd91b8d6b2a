# shellcheck shell=sh
# needs: shell/dnf_state.sh
# Steps with RPM packages.

# dnf_run ARG...: never cut, but for fetching indexes. It waits a while for another dnf; 200 is how dnf says that there is
# one (dnf.conf(5)).
dnf_run() {
  waited=0 kept=uncut
  [ "$1" != makecache ] || kept=
  while :; do
    $kept dnf -y --color=never --setopt=exit_on_lock=True --setopt=install_weak_deps=False "$@" 2>"$run/stderr"
    code=$?
    if [ "$code" -ne 200 ] || [ "$waited" -ge 120 ]; then break; fi
    [ "$waited" -gt 0 ] || say "waiting for another package operation: $(dnf_holder)"
    sleep 2
    waited=$((waited + 2))
  done
  cat "$run/stderr" >&2
  [ "$code" -ne 200 ] || fail "another package operation is under way, and did not end within $waited s: $(dnf_holder)"
  return "$code"
}

# dnf_reads NAME, a file for yum.repos.d in base64 on standard input: as apt_reads.
dnf_reads() {
  rm -rf -- "$run/trial" && mkdir -- "$run/trial" && base64 -d >"$run/trial/$1" || return
  dnf_run makecache --refresh --setopt=reposdir="$run/trial"
}

# dnf_holder: the process that has one of dnf's locks.
dnf_holder() {
  for lock in /var/cache/dnf/*.pid /var/lib/dnf/*.pid /run/dnf/*.pid; do
    holder=$(cat "$lock" 2>/dev/null) || continue
    [ -d "/proc/$holder" ] && echo "process $holder ($(tr '\0' ' ' <"/proc/$holder/cmdline"))" && return
  done
  echo "process unknown"
}

# switch_stream MODULE:STREAM: enables it in place of another one.
switch_stream() {
  dnf_run module reset "${1%%:*}" && dnf_run module enable "$1"
}

# dnf_install MODULE:STREAM "OURS..." PACKAGE[-VERSION]...: the stream may be empty.
# Removes nothing but what $may_remove names. After a failure, locks and stream are as they were.
# shellcheck disable=SC2086  # names of packages are words
dnf_install() {
  stream=$1
  ours=$2
  shift 2
  if [ ! -e "$run/dnf-is-fresh" ]; then
    dnf_run makecache --refresh || return
    : >"$run/dnf-is-fresh"
  fi
  module=$streams/${stream%%:*}.module
  rm -f "$run/locks" "$run/module"
  [ ! -e "$locks" ] || cp -p "$locks" "$run/locks" || return
  [ ! -e "$module" ] || cp -p "$module" "$run/module" || return
  unlock_rpms $ours ${may_remove-} && { [ -z "$stream" ] || switch_stream "$stream"; } &&
    dnf_approved "$@" && dnf_run install --allowerasing "$@" && return
  code=$?
  [ ! -e "$run/locks" ] || cat "$run/locks" >"$locks"
  if [ -e "$run/module" ]; then cp -p "$run/module" "$module"; elif [ -n "$stream" ]; then rm -f "$module"; fi
  return "$code"
}

# dnf_approved PACKAGE[-VERSION]...: asks dnf what it would do; only a table can be approved.
dnf_approved() {
  dnf --assumeno --color=never --setopt=exit_on_lock=False --setopt=install_weak_deps=False \
    install --allowerasing "$@" >"$run/simulation" 2>&1
  # shellcheck disable=SC2013  # names of packages are words
  for name in $(removals <"$run/simulation"); do
    among "$name" "${may_remove-}" || fail "dnf would remove $name, which the plan did not show: plan again" || return
  done
}

# removals: the names in the parts "Removing…:" of dnf's table, and those that are replaced.
removals() {
  awk '/^Removing.*:$/ { going = 1; next } /^[^ ]/ { going = 0 } /^ [^ ]/ && going { print $1 }
    /^     replacing / { sub(/\.[^.]*$/, "", $2); print $2 }'
}

# unlock_rpms NAME...: lifts locks that are ours, and no other.
unlock_rpms() {
  [ -e "$locks" ] || return 0
  for name; do
    is_ours "$name" || continue
    awk -v name="$name" '{ lock = $0; sub(/-[^-]*-[^-]*$/, "", lock) } lock != name' "$locks" >"$run/kept" &&
      cat "$run/kept" >"$locks" || return
  done
}

# lock_rpms NAME...: at the version that is installed; and write down that these locks are ours.
lock_rpms() {
  note_ours "$@" || return
  mkdir -p "${locks%/*}" && touch "$locks" && chmod 644 "$locks" && unlock_rpms "$@" || return
  rpm -q --qf '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.*\n' "$@" >"$run/locked" && cat "$run/locked" >>"$locks"
}

# rpm_versions NAME: of every instance of the host's own architecture, in the four ways in which it can be written.
rpm_versions() {
  rpm -q --qf '%{ARCH} %{VERSION}\n%{ARCH} %{VERSION}-%{RELEASE}\n%{ARCH} %{EPOCHNUM}:%{VERSION}\n%{ARCH} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' "$1" 2>/dev/null |
    sed -n -e "s/^$(uname -m) //p" -e 's/^noarch //p'
}

# rpm_is NAME GLOB: installed, at a version that matches.
rpm_is() {
  found=
  for found in $(rpm_versions "$1"); do
    # shellcheck disable=SC2254  # the version is a pattern on purpose
    case $found in $2) return 0 ;; esac
  done
  [ -n "$found" ] || fail "$1 is not installed, wanted $2" || return
  fail "$1 is at version $found, wanted $2"
}

# rpm_at_least NAME VERSION: installed, and not older.
rpm_at_least() {
  rpm_is "$1" '*' || return
  found=$(rpm -q --qf '%{VERSION}\n' "$1" | tail -n 1)
  printf '%s\n' "$2" "$found" | sort -V -C ||
    fail "$1 is at version $found, wanted at least $2: the repositories have no newer one"
}

# rpm_locked NAME: dnf heeds locks, and its newest instance has one.
rpm_locked() {
  rpm -q "$lock_plugin" >/dev/null || fail "dnf has no plugin that heeds locks" || return
  lock=$(rpm -q --qf '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.*\n' "$1" | tail -n 1)
  grep -q -x -F -e "$lock" "$locks" 2>/dev/null || fail "$1 is not locked"
}

# stream_is MODULE STREAM: it is enabled.
stream_is() {
  file=$streams/$1.module
  if grep -q -x -e "stream *= *$2" "$file" 2>/dev/null && grep -q -x -e 'state *= *enabled' "$file"; then return; fi
  fail "stream $2 of module $1 is not enabled"
}
