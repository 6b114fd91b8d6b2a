# shellcheck shell=sh
# The Docker Engine: which one a host has, and what it runs with.

# Written by dockerd when it starts.
docker_pid=/run/docker.pid

# Packages that bring dockerd, and start it when they are installed.
docker_engines='docker.io docker-ce moby-engine'

# docker_here: what there is of Docker: files, processes and packages; no daemon is asked.
docker_here() {
  for at in /snap/docker/current /var/lib/snapd/snap/docker/current; do
    if [ -e "$at" ]; then echo "snap $at"; fi
  done
  for file in /run/user/*/docker.pid "$docker_pid"; do
    pid=
    read -r pid 2>/dev/null <"$file" || [ -n "$pid" ] || continue
    if [ -d "/proc/$pid" ]; then echo "running ${file%.pid}"; fi
  done
  for file in /usr/bin/dockerd /usr/sbin/dockerd /usr/local/bin/dockerd; do
    if [ -x "$file" ]; then echo "dockerd $file"; fi
  done
  if grep -q -s -I podman /usr/bin/docker; then echo "podman /usr/bin/docker"; fi
  grep -o -s '"currentContext": *"[^"]*"' /root/.docker/config.json
  # shellcheck disable=SC2086  # names in a row
  if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f 'package ${Package} ${Version} ${db:Status-Status}\n' $docker_engines 2>/dev/null
  elif command -v rpm >/dev/null; then
    # Of a package that is not there, rpm says so on standard output.
    rpm -q --qf 'package %{NAME} %{VERSION}-%{RELEASE} installed\n' $docker_engines | grep -v ' is not installed$'
  fi
  :
}

# docker_runtimes: the default runtime and all runtimes as JSON; bounded, since a sick dockerd does not answer.
docker_runtimes() {
  command -v docker >/dev/null 2>&1 || { echo absent; return; }
  timeout 20 docker info --format '{{json .DefaultRuntime}} {{json .Runtimes}}'
}

# owed_to_docker FOLDER: the notes in it that are younger than the running dockerd: its start settled the others.
owed_to_docker() {
  cd "$1" 2>/dev/null || return 0
  # shellcheck disable=SC2035  # no note begins with a dash
  if [ -e "$docker_pid" ]; then find * -prune -newer "$docker_pid" 2>/dev/null; else ls; fi
  :
}
