# shellcheck shell=sh
# needs: shell/containers.sh shell/dockerd.sh triton/starts.sh
# The instances that run, and what a start of one would meet.

# Written by us: asks the driver for the GPUs of an instance.
gpu_gate=/usr/local/lib/provision/triton-gpu-gate

# instances: for each container of an instance its unit and the ports of the host that it holds.
instances() {
  form="triton@{{index .Config.Labels \"$instance_label\"}}.service{{range .HostConfig.PortBindings}}{{range .}} {{.HostPort}}{{end}}{{end}}"
  docker_says ps --quiet --filter "label=$instance_label" | xargs -r timeout -k 5 20 docker inspect --format "$form"
}

# holders UNIT PORT...: the other instances that hold one of these ports.
holders() {
  for_unit=$1
  shift
  instances | while read -r other held_ports; do
    [ "$other" != "$for_unit" ] || continue
    for port in "$@"; do
      case " $held_ports " in *" $port "*) echo "$other"; break ;; esac
    done
  done
}

# serving_now UNIT PORT...: how the unit is, and which other instances stop for it; and where it is down, who has its
# container's name, and ports. Docker's client has a line if it cannot run.
serving_now() {
  command -v docker >/dev/null || echo "client cannot"
  active=$(systemctl show -p ActiveState --value -- "$1")
  echo "state $active"
  holders "$@" | sed 's/^/holder /'
  case $active in inactive | failed) ! docker_is_up || { has_name "$1"; ports_held && sockets; } ;; esac
}

# has_name UNIT: the image of the container with the name of its own, and the label of an instance.
has_name() {
  name=${1#triton@} name=${name%.service}
  docker_says inspect --type container --format "named {{.Config.Image}} {{index .Config.Labels \"$instance_label\"}}" \
    "triton-$name" 2>/dev/null
}

# ports_held: those of instances.
ports_held() { instances | sed 's/^/holds /'; }

# sockets: those on which the host listens are among them.
sockets() { sed 's/^ */socket /' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }

docker_is_up() { docker_says version >/dev/null 2>&1; }

# instance_needs UNIT SELECTION: what a start of it would meet: why its GPUs cannot be had, who else has its container's
# name, the version of the engine, the ports that instances hold, and the sockets on which the host listens.
instance_needs() {
  if [ "$2" != none ] && [ -x "$gpu_gate" ]; then "$gpu_gate" "$2" 2>&1 | sed 's/^/gpus /'; fi
  if command -v dockerd >/dev/null; then dockerd --version | sed -n 's/^Docker version \([^,]*\),.*/engine \1/p'; fi
  if command -v docker >/dev/null; then
    has_name "$1"
    if docker_is_up; then ports_held; else echo silent; fi
  fi
  sockets
}
