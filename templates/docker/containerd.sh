# shellcheck shell=sh
# needs: shell/units.sh
# containerd, through which dockerd reaches containers.

# containerd_is_up UNIT
containerd_is_up() { systemctl is-active --quiet -- "$1"; }

# containers_are_reached: dockerd, which tries again by itself, has found containerd.
containers_are_reached() {
  for container in $(timeout -k 5 20 docker ps --quiet --no-trunc | head -n 1); do
    timeout -k 5 20 docker top "$container" >/dev/null 2>&1 || return
  done
}
