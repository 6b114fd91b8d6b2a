# shellcheck shell=sh
# needs: shell/dockerd.sh shell/apt_state.sh
# The Docker Engine: which one a host has, and what it runs with.

# Docker's client, or a script that runs podman.
docker_client=/usr/bin/docker

# Packages that bring dockerd, and start it when they are installed.
docker_engines='docker.io docker-ce moby-engine'

# docker_here: what there is of Docker: files, processes and packages; no daemon is asked.
docker_here() {
  for at in /snap/docker/current /var/lib/snapd/snap/docker/current; do
    if [ -e "$at" ]; then echo "snap $at"; fi
  done
  for file in /run/user/*/docker.pid "$docker_pid"; do
    # In their own folders users can make anything of that name.
    pid=
    if [ ! -f "$file" ] || [ -L "$file" ]; then continue; fi
    read -r pid 2>/dev/null <"$file"
    case $pid in '' | *[!0-9]*) continue ;; esac
    if [ -d "/proc/$pid" ]; then echo "running ${file%.pid}"; fi
  done
  for file in /usr/bin/dockerd /usr/sbin/dockerd /usr/local/bin/dockerd; do
    if [ -x "$file" ]; then echo "dockerd $file"; fi
  done
  # dockerd's PATH and root's have these folders before those of packages.
  for program in docker dockerd containerd runc nvidia-container-runtime; do
    for file in "/usr/local/sbin/$program" "/usr/local/bin/$program"; do
      [ ! -x "$file" ] || for own in "/usr/bin/$program" "/usr/sbin/$program"; do
        if [ -x "$own" ]; then echo "hidden $own by $file"; fi
      done
    done
  done
  # Podman's is a script, Docker's is not.
  first=
  read -r first 2>/dev/null <"$docker_client"
  case $first in '#!'*) ! grep -q podman "$docker_client" || echo "podman $docker_client" ;; esac
  if [ -e /root/.docker/config.json ]; then grep -o '"currentContext": *"[^"]*"' /root/.docker/config.json; fi
  if [ -d "$dpkg_info" ]; then
    # dpkg keeps the sums of a package as long as its files are there.
    set --
    for engine in $docker_engines; do [ ! -e "$dpkg_info/$engine.md5sums" ] || set -- "$@" "package $engine"; done
    if [ $# -gt 0 ]; then printf '%s\n' "$@"; elif [ -x /usr/sbin/dockerd ] || [ -x /usr/bin/dockerd ]; then
      # A dpkg that was cut while it unpacked has put the programs in place, and not yet the sums.
      # shellcheck disable=SC2086  # names in a row
      dpkg-query -W -f 'package ${Package} ${db:Status-Status}\n' $docker_engines 2>/dev/null |
        sed -n 's/ half-installed$//p'
    fi
  elif command -v rpm >/dev/null; then
    # Of a package that is not there, rpm says so on standard output.
    # shellcheck disable=SC2086  # names in a row
    rpm -q --qf 'package %{NAME}\n' $docker_engines | grep -v ' is not installed$'
  fi
  :
}

# owed_to_docker FOLDER: the notes in it that are younger than the running dockerd: its start settled the others.
owed_to_docker() {
  for note in "$1"/*; do
    # shellcheck disable=SC3013  # dash, bash and busybox know -nt
    if [ -e "$note" ] && { [ ! -e "$docker_pid" ] || [ "$note" -nt "$docker_pid" ]; }; then echo "${note##*/}"; fi
  done
}
