# shellcheck shell=sh
# needs: docker/daemon_json.sh docker/restart_preview.sh shell/units.sh
# A running dockerd: started, restarted and reloaded, with the previous daemon.json where it does not take the new one.

# docker_knows DEFAULT WORD...: the running dockerd has this default runtime, and these: names of runtimes,
# insecure=REGISTRY, mirror=ADDRESS, debug=true, live-restore=true.
docker_knows() {
  default=$1
  shift
  told='{{.DefaultRuntime}}{{range $name, $_ := .Runtimes}} {{$name}}{{end}}{{with .RegistryConfig}}'
  told=$told'{{range $name, $index := .IndexConfigs}}{{if not $index.Secure}} insecure={{$name}}{{end}}{{end}}'
  told=$told'{{range .Mirrors}} mirror={{.}}{{end}}{{end}} debug={{.Debug}} live-restore={{.LiveRestoreEnabled}}'
  known=$(timeout -k 5 20 docker info --format "$told" | sed 's:/\( \|$\):\1:g') && [ -n "$known" ] || return
  [ "${known%% *}" = "$default" ] || return
  for word in "$@"; do
    case " ${known#* } " in *" $word "*) ;; *) return 1 ;; esac
  done
}

# docker_answers: dockerd answers, not only its client.
docker_answers() { timeout -k 5 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# containers_outlive_docker: live-restore is on in the running dockerd.
containers_outlive_docker() { [ "$(timeout -k 5 20 docker info --format '{{.LiveRestoreEnabled}}')" = true ]; }

# start_docker DEFAULT RUNTIME...
start_docker() { bring_up_docker start "$@"; }

# nothing_stops: the plan found no container that a restart would stop; there may be some by now.
# shellcheck disable=SC2154  # the step sets $outlive
nothing_stops() {
  systemctl is-active --quiet docker.service || return 0
  names=$(running_with_docker)
  if [ "$outlive" != yes ] && { [ "$outlive" = no ] || ! containers_outlive_docker; }; then
    names="$names $(timeout -k 5 20 docker ps --format '{{.Names}}')"
  fi
  # shellcheck disable=SC2086  # names in a row
  set -- $names
  [ $# -eq 0 ] || fail "dockerd is not restarted: since the plan was made, these were started: $*"
}

# restart_docker DEFAULT RUNTIME...; $allowed is whether containers may stop, $outlive whether they outlive
# dockerd: yes, no, or as now.
# shellcheck disable=SC2154  # the step sets both
restart_docker() {
  forget_what_is_proven
  [ "$allowed" = yes ] || nothing_stops || return
  if [ "$outlive" = yes ] && systemctl is-active --quiet docker.service && ! containers_outlive_docker; then
    dependents='' had_failed=''
    if ! { systemctl reload docker.service && wait_until 30 containers_outlive_docker; }; then
      back_to_the_previous reload "$@"
      return
    fi
  fi
  bring_up_docker restart "$@"
}

# adopt_docker DEFAULT RUNTIME...: after the engine's package moved; most packages restart dockerd themselves.
adopt_docker() {
  installed=$(dockerd --version) || return
  running=$(timeout -k 5 20 docker version --format '{{.Server.Version}}' 2>/dev/null)
  case $installed in *" version $running,"*) [ -z "$running" ] || return 0 ;; esac
  restart_docker "$@"
}

# bring_up_docker VERB DEFAULT RUNTIME...
bring_up_docker() {
  verb=$1
  shift
  dependents=$(running_with_docker)
  had_failed=$(failed_with_docker)
  promised=$(promised_to_return)
  # A socket that gave up on starting its service stays failed otherwise.
  systemctl reset-failed docker.socket 2>/dev/null
  if run_unit "$verb" docker.service 120 && wait_until 30 docker_knows "$@"; then
    rm -rf -- "$docker_before"
    bring_back "$promised"
    name_failed "$had_failed"
  else
    back_to_the_previous restart "$@"
  fi
}

# promised_to_return: the running containers that Docker starts again when it starts. Those of a dockerd that was killed
# run on without it, until the next one ends them.
promised_to_return() {
  if ! systemctl is-active --quiet docker.service; then
    for folder in /var/lib/docker/containers/*/; do
      grep -q -s '"Running":true' "${folder}config.v2.json" || continue
      grep -q -s -E '"RestartPolicy":\{"Name":"(always|unless-stopped)"' "${folder}hostconfig.json" || continue
      basename "$folder"
    done
    return
  fi
  form='{{.Id}} {{.HostConfig.RestartPolicy.Name}}'
  timeout -k 5 20 docker ps --quiet --no-trunc | xargs -r timeout -k 5 60 docker inspect --format "$form" |
    sed -n -E 's/ (always|unless-stopped)$//p'
}

# bring_back CONTAINERS: starts those that Docker did not, and names those that do not start.
bring_back() {
  for id in $1; do
    case $(timeout -k 5 20 docker inspect --format '{{.State.Running}} {{.Name}}' "$id" 2>&1) in
      "true "*) ;;
      "false "*) timeout -k 5 60 docker start "$id" >/dev/null || say "container $id did not come back: docker logs $id" ;;
      *) say "container $id is not known to Docker any more" ;;
    esac
  done
}

# name_failed UNITS: says which of them, failed before dockerd was started, are so still.
name_failed() {
  for unit in $1; do
    ! systemctl is-failed --quiet -- "$unit" || say "$unit had failed before, and is not started: journalctl -u $unit"
  done
}

# reload_docker DEFAULT RUNTIME...
reload_docker() {
  dependents='' had_failed=''
  since=$(journalctl --no-pager -q -n 0 --show-cursor -u docker.service | sed -n 's/^-- cursor: //p')
  if systemctl reload docker.service && wait_until 30 docker_knows "$@" && reload_was_taken; then
    rm -rf -- "$docker_before"
  else
    back_to_the_previous reload "$@"
  fi
}

# reload_was_taken: dockerd tells in its journal alone what it makes of a reload, with all that is in daemon.json.
reload_was_taken() {
  patience=10
  while [ "$patience" -gt 0 ]; do
    reloaded=$(journalctl --no-pager -q -o cat -u docker.service ${since:+"--after-cursor=$since"})
    case $reloaded in *'Reloaded configuration'*) return 0 ;; esac
    if printf '%s\n' "$reloaded" | grep -E 'level=(error|fatal)' | grep -i -E 'reload|config'; then return 1; fi
    patience=$((patience - 1))
    sleep 1
  done
  # With a log level above info it says nothing of one that went well.
  ! printf '%s\n' "$reloaded" | grep -E 'level=(error|fatal)'
}

# what_is_back, with_what: of daemon.json, which may not have been there before.
what_is_back() { if [ -e "$daemon_json" ]; then echo "the previous one is back"; else echo "it is taken away again"; fi; }
with_what() { if [ -e "$daemon_json" ]; then echo "with it"; else echo "without one"; fi; }

# back_to_the_previous VERB DEFAULT RUNTIME...: dockerd does not run with the new daemon.json. Always fails.
back_to_the_previous() {
  verb=$1
  if daemon_json_is_proven; then
    fail "docker.service did not come up; its daemon.json is the one that it ran with before"
    return
  fi
  put_back_daemon_json || return
  systemctl reset-failed docker.socket 2>/dev/null
  if run_unit "$verb" docker.service 120 >"$run/docker-again" 2>&1 && wait_until 30 docker_answers; then
    # A restart did what was owed, and the reload of the new file is owed no more.
    [ "$verb" = reload ] || rm -f "$owed/restart-docker.service"
    rm -f "$owed/reload-docker.service"
    # shellcheck disable=SC2086  # names of units
    [ -z "$dependents" ] || systemctl start --no-block -- $dependents
    name_failed "$had_failed"
    fail "dockerd does not run with the new $daemon_json: $(what_is_back), and docker runs $(with_what)"
  else
    cat "$run/docker-again"
    fail "dockerd does not run with the new $daemon_json, nor as before: $(what_is_back)"
  fi
}
