# shellcheck shell=sh
# Docker's images and containers.

# Folders of the running containers, named by their ids: those of a containerd of its own, and of dockerd's.
container_tasks='/run/containerd/io.containerd.runtime.v2.task/moby/* /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*'

# The label of a container that names the instance of the unit that runs it.
# shellcheck disable=SC2034  # used by files that need this one
instance_label=provision.instance

# image_names REF...: a line of JSON with tags and one with digests for each image that is there.
image_names() {
  command -v docker >/dev/null 2>&1 || { echo unknown; return; }
  timeout 30 docker image inspect --format '{{json .RepoTags}} {{json .RepoDigests}}' "$@"
}

# containers_with_gpus: ids of the running containers that have NVIDIA's devices, without a single process.
containers_with_gpus() {
  for task in $container_tasks; do
    pid=
    read -r pid 2>/dev/null <"$task/init.pid" || [ -n "$pid" ] || continue
    [ -e "/proc/$pid/root/dev/nvidiactl" ] || continue
    echo "${task##*/}"
  done
}
