# shellcheck shell=sh
# needs: shell/containers.sh
# Who notices a restart of dockerd.

# running_with_docker: units that systemd stops with docker.service, also those that are still starting.
running_with_docker() {
  for unit in $(systemctl show -p ConsistsOf --value docker.service); do
    case $unit in *.service) ;; *) continue ;; esac
    case $(systemctl is-active -- "$unit") in inactive | failed | unknown) ;; *) echo "$unit" ;; esac
  done
}

# failed_with_docker: units that systemd restarts with docker.service, and not while they are failed.
failed_with_docker() {
  for unit in $(systemctl show -p ConsistsOf --value docker.service); do
    case $(systemctl is-active -- "$unit") in failed) echo "$unit" ;; esac
  done
}

# restart_preview OUTLIVE [lost]: repeats whether containers outlive dockerd and whether it forgets them, and lists the
# units and containers that run.
restart_preview() {
  echo "outlive $1"
  [ -z "$2" ] || echo "lost"
  systemctl is-active --quiet docker.service || return 0
  echo active
  running_with_docker | sed 's/^/unit /'
  if live=$(timeout -k 5 20 docker info --format '{{.LiveRestoreEnabled}}' 2>/dev/null) && [ -n "$live" ]; then
    echo "live-restore $live"
    form='container {{.Name}} {{.Config.Image}} {{or .HostConfig.RestartPolicy.Name "no"}}'
    docker ps --quiet --no-trunc |
      xargs -r timeout -k 5 60 docker inspect --format "$form {{index .Config.Labels \"$instance_label\"}}"
  else
    for task in $container_tasks; do
      if [ -d "$task" ]; then echo "unknown ${task##*/}"; fi
    done
  fi
  :
}
