# shellcheck shell=sh disable=SC2154,SC2016
# Docker.

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
