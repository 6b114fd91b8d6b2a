# shellcheck shell=sh
# needs: shell/containers.sh shell/dockerd.sh
# Whether running containers see their GPUs, and whether they keep them.

# sight CONTAINER: what nvidia-smi in it says of GPUs, in a word: yes, no, unknown, or untold if there is no such program.
sight() {
  said=$(timeout -k 5 20 docker exec "$1" nvidia-smi -L 2>&1)
  case "$? $said" in
    "0 "*) echo yes ;;
    126* | 127*) echo untold ;;
    124* | 137* | *"Error response from daemon"*) echo unknown ;;
    *) echo no ;;
  esac
}

# gpus_of_containers: for each container with GPUs its id, whether systemd keeps its devices, whether it sees its GPUs,
# its name, its image and, of an instance, its name.
gpus_of_containers() {
  dockerd_runs || return 0
  for id in $(containers_with_gpus); do
    scope=$(systemctl show -p DevicePolicy,DeviceAllow "docker-$id.scope" 2>/dev/null)
    case $scope in
      *DeviceAllow=/dev/char/195:* | *char-nvidia*) devices=kept ;;
      *DevicePolicy=strict* | *DevicePolicy=closed*) devices=lost ;;
      *) devices=kept ;;
    esac
    form="$id $devices $(sight "$id") {{.Name}} {{.Config.Image}}{{with index .Config.Labels \"$instance_label\"}} {{.}}{{end}}"
    timeout -k 5 20 docker inspect --format "$form" "$id" 2>/dev/null
  done
  :
}

# lost_gpus CONTAINER: succeeds if the container does not see its GPUs. One without nvidia-smi is asked to open the
# driver's device, which its cgroup refuses then.
lost_gpus() {
  case $(sight "$1") in
    no) return 0 ;;
    untold) ;;
    *) return 1 ;;
  esac
  case $(timeout -k 5 20 docker exec "$1" sh -c ': </dev/nvidiactl' 2>&1) in
    *"not permitted"*) return 0 ;;
    *) return 1 ;;
  esac
}

# gpus_are_still_seen [CONTAINER...]: by every running container with GPUs but these, which saw none before.
gpus_are_still_seen() {
  lost=
  for id in $(containers_with_gpus); do
    case " $* " in *" $id "*) continue ;; esac
    lost_gpus "$id" || continue
    name=$(timeout -k 5 20 docker inspect --format '{{.Name}} ({{.Config.Image}})' "$id") || continue
    lost="$lost ${name#/}"
  done
  [ -z "$lost" ] || fail "containers that no longer see their GPUs:$lost; re-create them, with --runtime=nvidia"
}
