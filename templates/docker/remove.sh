# shellcheck shell=sh
# needs: docker/daemon_json.sh shell/containers.sh shell/dockerd.sh
# daemon.json without our keys.

# forget_daemon_json: what was remembered of it.
forget_daemon_json() { rm -rf -- "${docker_memory%/*}"; }

# made_with_runtimes: the names of the containers that were made with the runtime nvidia, our servers aside. They do not
# start without it.
made_with_runtimes() {
  form="{{if and (eq .HostConfig.Runtime \"nvidia\") (not (index .Config.Labels \"$instance_label\"))}}{{.Name}}{{end}}"
  docker_says ps --all --quiet | xargs -r timeout -k 5 60 docker inspect --format "$form" | sed '/^$/d'
}
