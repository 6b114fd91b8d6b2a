# shellcheck shell=sh
# needs: shell/own_units.sh shell/units.sh triton/starts.sh
# An instance whose new version does not get ready serves with the previous one again: its unit file, its environment,
# and the image that the name of its image stood for.

# await_version UNIT: as keep_version, before the first of its files changes. A start that Docker's restart or a boot began
# may not be over, and tells whether it serves; one that failed before is not waited for.
await_version() {
  case $(systemctl is-active -- "$1") in
    activating | deactivating) [ "$(systemctl show -p NRestarts --value -- "$1")" != 0 ] || systemctl start -- "$1" ;;
  esac
  keep_version "$1"
}

# keep_version UNIT: what it serves with, if it serves. What is kept stays as long as the start of that time serves: its
# files may be new ones already, as those that change without a restart.
keep_version() {
  systemctl is-active --quiet -- "$1" || return 0
  ! is_kept "$1" || return 0
  version=$served_versions/$1 start=$(start_of "$1")
  mkdir -p "$served_versions" && {
    echo "$start"
    container=${1#triton@} container=triton-${container%.service}
    timeout -k 5 20 docker inspect --type container --format 'image {{.Image}} {{.Config.Image}}' "$container" 2>/dev/null
    for file in "$unit_folder/$1" "$(environment_of "$1")"; do keep_file file "$file" || return; done
    for file in $(gates_of "$1"); do keep_file gate "$file" || return; done
  } >"$version.new" && sync "$version.new" && mv -f -T -- "$version.new" "$version"
}

# keep_file WORD FILE: a line with all of it, if it is there.
keep_file() { [ ! -f "$2" ] || echo "$1 $2 $(stat -L -c '%04a %U:%G' -- "$2") $(base64 -w0 <"$2")"; }

# gates_of UNIT: what its file names of the programs that come before and after a start. All instances share them.
gates_of() { sed -n 's/^ExecStartP[a-z]*=\(\/usr\/local\/lib\/provision\/[^ ]*\).*/\1/p' "$unit_folder/$1" | sort -u; }

# enabled_anew UNIT: an enabled unit gets the links that its file asks for now.
enabled_anew() { ! systemctl is-enabled --quiet -- "$1" || systemctl enable --quiet -- "$1"; }

# forget_version UNIT: the new one is ready.
forget_version() { rm -f -- "$served_versions/$1"; }

# put_back_version UNIT: says in $is_back whether anything of it was another one.
put_back_version() {
  is_back=
  [ -f "$served_versions/$1" ] || return 0
  while read -r what name mode owner content; do
    case $what in
      file) [ "$(base64 -w0 2>/dev/null <"$name")" = "$content" ] || put_back_file || return ;;
      # One that is there serves other instances as it is.
      gate) [ -e "$name" ] || { remember "triton file:$name" && put_back_file; } || return ;;
      # A digest never stands for another image.
      image) case $mode in *@*) ;; *) put_back_tag "$name" "$mode" || return ;; esac ;;
    esac
  done <"$served_versions/$1"
}

# put_back_file: of $name, $mode, $owner and $content. What it replaces is in the backups then.
put_back_file() {
  is_back=yes
  printf '%s\n' "$content" | write_file "$name" "$mode" "$owner"
}

# put_back_tag ID NAME: the name stands for this image again.
put_back_tag() {
  tagged=$(timeout -k 5 20 docker image inspect --format '{{.Id}}' "$2" 2>/dev/null)
  [ "$tagged" != "$1" ] || return 0
  is_back=yes
  timeout -k 5 20 docker tag "$1" "$2" </dev/null || return
  if [ -n "$tagged" ]; then
    say "$2 is tagged as before; the image that did not get ready is $tagged"
  else
    say "$2 is tagged as before; no image had the name any more"
  fi
}

# start_or_go_back UNIT SECONDS, restart_or_go_back UNIT SECONDS: as start_unit and restart_unit. Where the unit does not
# get ready, it is started with its previous version; that fails in any case, and $told says what serves.
start_or_go_back() { up_or_go_back start_unit "$@"; }
restart_or_go_back() { up_or_go_back restart_unit "$@"; }

# up_or_go_back WORD UNIT SECONDS; the instances in $stopped have stopped for it, and go back, too, if they can.
# shellcheck disable=SC2034,SC2154  # serve has them
up_or_go_back() {
  keep_version "$2" || return
  "$@" && return
  code=$?
  why="$2 did not get ready: $(reason_in "$run/journal")"
  if ! put_back_version "$2" 2>"$run/trouble"; then
    told="$why; the previous version could not be put back: $(tail -n 1 "$run/trouble")"
    return 1
  fi
  [ -n "$is_back" ] || return "$code"
  went_back=yes
  for other in $stopped; do put_back_version "$other" || echo "the previous version of $other could not be put back"; done
  # As long as the previous unit gives it.
  seconds=$(sed -n 's/^TimeoutStartSec=\([0-9]*\)$/\1/p' "$unit_folder/$2")
  if systemctl daemon-reload && enabled_anew "$2" && run_unit restart "$2" "$((${seconds:-$3} + 30))" >"$run/back" 2>&1; then
    rm -f -- "$owed/restart-$2"
    forget_version "$2"
    told="$why; the previous version serves again"
  else
    cat "$run/back"
    told="$why; the previous version is back, and does not get ready either: $(reason_in "$run/journal")"
  fi
  return 1
}

# reason_in FILE: why a start failed, from the lines of its journal: in Triton's words if it says why, or in those of
# Docker, or of what runs before and after the start.
reason_in() {
  for pattern in '^[^ ]+ E [0-9]+ [^]]+\] "failed to load .*version' \
    'unrecognized option|[Uu]nknown option|error while loading shared libraries' \
    '^canary [^ ]+: |^model [^ ]+ is not ready: |^no model is in ' '^[^ ]+ E [0-9]+ [^]]+\] ' '^error: ' 'mpirun noticed|slots available|already filled' 'Error response from daemon: (No such image|[^N])' \
    'not ready after|ended while it was loading|is not mounted|is not among|NVIDIA driver'; do
    line=$(grep -m 1 -E -e "$pattern" "$1") || continue
    printf '%s\n' "$line" | sed 's/^[^ ]* E [0-9]* [^]]*\] //; s/^"//; s/"$//; s/\\n.*//' | cut -b 1-400
    return
  done
  echo "its journal does not say why"
}
