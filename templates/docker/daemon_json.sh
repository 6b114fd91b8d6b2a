# shellcheck shell=sh
# needs: docker/engine.sh shell/files.sh
# daemon.json: checked before it is written, and the one that dockerd ran with kept until the new one is proven.

daemon_json=/etc/docker/daemon.json

# The keys that we set in it, and what was there before.
docker_memory=/var/lib/provision/docker/daemon.json.ours

# What dockerd ran with before daemon.json was written, until dockerd is seen to run with the new one.
docker_before=/var/lib/provision/docker/before

# validate_daemon_json, the document in base64 on standard input: asks dockerd, where there is one that can tell.
validate_daemon_json() {
  base64 -d >"$run/daemon.json" || return
  valid=0
  if dockerd --help 2>/dev/null | grep -q -- --validate; then
    timeout -k 5 60 dockerd --validate --config-file "$run/daemon.json" || valid=$?
  fi
  rm -f -- "$run/daemon.json"
  [ "$valid" -eq 0 ] || { nothing_done; return 1; }
}

# forget_what_is_proven: dockerd was started since daemon.json was written, by a reboot or by hand, and runs.
forget_what_is_proven() {
  [ -d "$docker_before" ] || return 0
  [ -n "$(find "$docker_pid" -newer "$docker_before" 2>/dev/null)" ] || return 0
  ! systemctl is-active --quiet docker.service || rm -rf -- "$docker_before"
}

# keep_working_daemon_json: what is there now, unless an older one is kept because this one is not proven.
keep_working_daemon_json() {
  forget_what_is_proven
  [ ! -d "$docker_before" ] || return 0
  rm -rf "$docker_before.new" && mkdir -p "$docker_before.new" || return
  for kept in "$daemon_json" "$docker_memory"; do
    [ ! -e "$kept" ] || { cp -L -p -- "$kept" "$docker_before.new/" && sync "$docker_before.new/${kept##*/}"; } || return
  done
  mv -T -- "$docker_before.new" "$docker_before"
}

# daemon_json_is_proven: dockerd was seen to run with the daemon.json that is there.
daemon_json_is_proven() { [ ! -d "$docker_before" ]; }

# put_back_daemon_json: the file and the memory as they were; the refused file stays in the backups, for root alone.
put_back_daemon_json() {
  at=$(readlink -m -- "$daemon_json") || return
  refused=$backups/${run##*/}$daemon_json.refused
  [ ! -e "$at" ] || { mkdir -p -- "${refused%/*}" && cp -- "$at" "$refused"; } || return
  put_back "$docker_before/daemon.json" "$at" && put_back "$docker_before/${docker_memory##*/}" "$docker_memory" &&
    rm -rf -- "$docker_before" "$docker_memory.new"
}

# put_back COPY PATH: the copy is moved there; without a copy there is nothing there.
put_back() {
  if [ -e "$1" ]; then
    cp -p -- "$1" "$2.provision" && sync "$2.provision" && mv -f -T -- "$2.provision" "$2"
  else
    rm -f -- "$2"
  fi
}
