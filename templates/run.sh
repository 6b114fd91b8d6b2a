# shellcheck shell=sh disable=SC2154,SC2016
# What every plan's script begins with: how steps run, and the words they are written in.
# $run is the folder of this run: root-only, with a log for each step and the events that a controller follows.

export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_MODE=l HOME=/root
umask 077
owed=/var/lib/provision/owed
cd / || exit 1

now() { date +%s%3N; }
event() { printf '%s\n' "$*" >>"$run/events"; }
encode() { base64 -w0; }
fail() { echo "$*" >&2; return 1; }

# step N NAME OWES SETTLES: runs guard_N, do_N and done_N, and tells what became of it.
step() {
  event start "$1" "$(printf '%s' "$2" | encode)"
  began=$(now)
  if ("done_$1") </dev/null >/dev/null 2>&1; then
    event skip "$1"
    return
  fi
  if ! ("guard_$1") </dev/null >"$run/$1.log" 2>&1; then
    event fail "$1" guard 0 "$(tail -n 20 "$run/$1.log" | encode)"
    finish failed
  fi
  for note in $3; do : >"$owed/$note"; done
  ("do_$1") </dev/null >"$run/$1.log" 2>&1
  code=$?
  took=$(($(now) - began))
  if [ "$code" -ne 0 ]; then
    event fail "$1" "$code" "$took" "$(tail -n 20 "$run/$1.log" | encode)"
    finish failed
  fi
  for note in $4; do rm -f "$owed/$note"; done
  if ! ("done_$1") </dev/null >>"$run/$1.log" 2>&1; then
    event fail "$1" unproven "$took" "$(tail -n 20 "$run/$1.log" | encode)"
    finish failed
  fi
  event ok "$1" "$took"
}

finish() {
  event end "$1"
  rm -f "$run/script"
  rm -rf /run/provision/lock
  trap - EXIT
  exit 0
}

begin() {
  echo $$ >"$run/pid"
  trap 'event end interrupted; rm -f "$run/script"; rm -rf /run/provision/lock' EXIT
  trap 'exit 143' HUP INT TERM
  mkdir -p "$owed"
}

# --- files ---------------------------------------------------------------------------------------

# holds FILE SHA256: the file has this content.
holds() { [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]; }

# owned PATH "MODE OWNER:GROUP"
owned() { [ "$(stat -L -c '%04a %U:%G' -- "$1" 2>/dev/null)" = "$2" ]; }

# backup PATH: keeps what is there before it is replaced or removed.
backup() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  kept=/var/backups/provision/${run##*/}$1
  mkdir -p -- "${kept%/*}" && cp -a -- "$1" "$kept"
}

# write_file PATH MODE OWNER:GROUP, the content in base64 on standard input: whole or not at all.
write_file() {
  file=$(readlink -m -- "$1") || return
  folder=${file%/*}
  (umask 022 && mkdir -p -- "${folder:-/}") || return
  backup "$file" || return
  new=$(mktemp -- "${folder:-}/.provision.XXXXXX") || return
  if base64 -d >"$new" && chown "$3" "$new" && chmod "$2" "$new" && sync "$new" && mv -f -T -- "$new" "$file"; then
    sync "${folder:-/}"
  else
    rm -f -- "$new"
    return 1
  fi
  case $file in /etc/apt/*) rm -f "$run/apt-is-fresh" ;; esac
}

# make_directory PATH MODE OWNER:GROUP
make_directory() { (umask 022 && mkdir -p -- "$1") && chmod "$2" "$1" && chown "$3" "$1"; }

# --- packages ------------------------------------------------------------------------------------

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

rebuild_initramfs() {
  if command -v update-initramfs >/dev/null; then
    update-initramfs -u
  elif command -v dracut >/dev/null; then
    dracut --force
  fi
}

# load_module NAME
load_module() {
  if [ -d /sys/module/nouveau ]; then
    fail "nouveau is loaded and holds the GPU; it is blacklisted now, and gone after a reboot"
    return
  fi
  timeout 120 modprobe -- "$1"
}

# module_is NAME GLOB: loaded in a version that matches, which is also the installed one where that is known.
module_is() {
  read -r loaded <"/sys/module/$1/version" || return
  installed=$(modinfo -F version "$1" 2>/dev/null) || installed=
  # shellcheck disable=SC2254  # the version is a pattern on purpose
  case $loaded in $2) ;; *) fail "$1 $loaded is loaded, wanted $2"; return ;; esac
  [ -z "$installed" ] || [ "$installed" = "$loaded" ] || fail "$1 $loaded is loaded, $installed is installed"
}

# reload_module nvidia: with the modules on top of it; only while nothing but the persistence daemon uses them.
reload_module() {
  daemon=
  if systemctl is-active --quiet nvidia-persistenced.service; then
    daemon=yes
    systemctl stop nvidia-persistenced.service || return
  fi
  for module in nvidia_uvm nvidia_drm nvidia_modeset nvidia_peermem "$1"; do
    [ -d "/sys/module/$module" ] || continue
    timeout 60 modprobe -r -- "$module" && continue
    [ -z "$daemon" ] || systemctl start nvidia-persistenced.service
    fail "reboot needed: kernel module $module is in use, so the new driver cannot be loaded"
    return
  done
  timeout 120 modprobe -- "$1" && timeout 120 modprobe -- nvidia-uvm || return
  [ -z "$daemon" ] || systemctl start nvidia-persistenced.service
}

# --- units and Docker ----------------------------------------------------------------------------

# wait_until SECONDS COMMAND...
wait_until() {
  limit=$1
  shift
  until "$@"; do
    limit=$((limit - 1))
    if [ "$limit" -le 0 ]; then
      fail "still not so: $*"
      return
    fi
    sleep 1
  done
}

unit_is_up() {
  systemctl is-active --quiet -- "$1" || return
  case $(systemctl is-enabled -- "$1" 2>/dev/null) in
    enabled | enabled-runtime | static | indirect | generated | alias) ;;
    *) return 1 ;;
  esac
}

enable_unit() {
  case $(systemctl is-enabled -- "$1" 2>/dev/null) in
    static | indirect | generated | alias) ;;
    *) systemctl enable --quiet -- "$1" ;;
  esac
}

# start_unit UNIT SECONDS: waits until it is up; says what its journal says if it does not come up.
start_unit() {
  verb=start
  case $(systemctl show -p SubState --value -- "$1") in
    failed) systemctl reset-failed -- "$1" ;;
    # systemd waits for its own timer when a unit is started between two tries, so this does not.
    auto-restart*) verb=restart ;;
  esac
  run_unit "$verb" "$@"
}

# restart_unit UNIT SECONDS
restart_unit() { run_unit restart "$@"; }

run_unit() {
  since=$(date +%s)
  timeout "$3" systemctl "$1" -- "$2" && return
  code=$?
  [ "$code" -ne 124 ] || echo "$2 did not come up within $3 s"
  # The cause often stands far above the end. With --since, journalctl's own -n would show the first lines.
  journalctl --no-pager -o cat -u "$2" --since "@$since" | grep -v '^[+|]' >"$run/journal"
  grep -i -m 5 -E 'error|fail|unrecognized|invalid|denied|not found' "$run/journal"
  echo "..."
  tail -n 8 "$run/journal"
  return "$code"
}

# retire_unit FILE: a unit of ours that nobody wants any more, and its environment.
retire_unit() {
  unit=${1##*/}
  systemctl disable --quiet --now -- "$unit"
  backup "$1" && rm -f -- "$1" && systemctl daemon-reload || return
  environment=${unit#triton@}
  environment=/etc/triton/${environment%.service}.env
  backup "$environment" && rm -f -- "$environment"
}

# docker_knows DEFAULT RUNTIME...: the running dockerd has these runtimes and this default.
docker_knows() {
  default=$1
  shift
  known=$(timeout 20 docker info --format '{{.DefaultRuntime}}{{range $name, $_ := .Runtimes}} {{$name}}{{end}}') || return
  [ "${known%% *}" = "$default" ] || return
  for runtime in "$@"; do
    case " ${known#* } " in *" $runtime "*) ;; *) return 1 ;; esac
  done
}

reload_docker() { systemctl reload docker.service && wait_until 30 docker_knows "$@"; }

# validate_daemon_json, the document on standard input: asks dockerd, where there is one that can tell.
validate_daemon_json() {
  cat >"$run/daemon.json" || return
  if dockerd --help 2>/dev/null | grep -q -- --validate; then
    dockerd --validate --config-file "$run/daemon.json"
  fi
}

not_owed() { [ ! -e "$owed/$1" ]; }

