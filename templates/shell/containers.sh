# shellcheck shell=sh
# Docker's images and containers.

# image_names REF...: a line of JSON with tags and one with digests for each image that is there.
image_names() {
  command -v docker >/dev/null 2>&1 || { echo unknown; return; }
  timeout 30 docker image inspect --format '{{json .RepoTags}} {{json .RepoDigests}}' "$@"
}

# containers_with_gpus: ids of the running containers that have NVIDIA's devices, without a single process.
containers_with_gpus() {
  for task in /run/containerd/io.containerd.runtime.v2.task/moby/* \
    /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*; do
    pid=
    read -r pid 2>/dev/null <"$task/init.pid" || [ -n "$pid" ] || continue
    [ -e "/proc/$pid/root/dev/nvidiactl" ] || continue
    echo "${task##*/}"
  done
}

# sees_gpus CONTAINER: 0 if it does, 1 if not, 2 if nobody can tell, as it stops or has no program to ask.
sees_gpus() {
  said=$(timeout 20 docker exec "$1" nvidia-smi -L 2>&1)
  case "$? $said" in
    "0 "*) return 0 ;;
    126* | 127*) ;;
    124* | *"Error response from daemon"*) return 2 ;;
    *) return 1 ;;
  esac
  case $(timeout 20 docker exec "$1" sh -c ': </dev/nvidiactl' 2>&1) in
    *"not permitted"*) return 1 ;;
    *) return 2 ;;
  esac
}

# gpus_of_containers: for each of them its id, whether systemd keeps its devices, whether it sees its GPUs, its name
# and its image.
gpus_of_containers() {
  for id in $(containers_with_gpus); do
    scope=$(systemctl show -p DevicePolicy,DeviceAllow "docker-$id.scope" 2>/dev/null)
    case $scope in
      *DeviceAllow=/dev/char/195:* | *char-nvidia*) devices=kept ;;
      *DevicePolicy=strict* | *DevicePolicy=closed*) devices=lost ;;
      *) devices=kept ;;
    esac
    timeout 20 docker inspect --format "$id $devices $(sight "$id") {{.Name}} {{.Config.Image}}" "$id" 2>/dev/null
  done
  :
}

# sight CONTAINER: whether it sees its GPUs, in a word.
sight() {
  said=$(timeout 20 docker exec "$1" nvidia-smi -L 2>&1)
  case "$? $said" in
    "0 "*) echo yes ;;
    124* | 126* | 127* | *"Error response from daemon"*) echo unknown ;;
    *) echo no ;;
  esac
}

# gpus_are_still_seen [CONTAINER...]: by every running container with GPUs but these, which saw none before.
gpus_are_still_seen() {
  lost=
  for id in $(containers_with_gpus); do
    case " $* " in *" $id "*) continue ;; esac
    sees_gpus "$id"
    [ $? -eq 1 ] || continue
    name=$(timeout 20 docker inspect --format '{{.Name}} ({{.Config.Image}})' "$id") || continue
    lost="$lost ${name#/}"
  done
  [ -z "$lost" ] || fail "containers that no longer see their GPUs:$lost; re-create them, with --runtime=nvidia"
}
