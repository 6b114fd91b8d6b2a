# shellcheck shell=sh
# Docker's images and containers.

# Folders of the running containers, named by their ids: those of a containerd of its own, and of dockerd's.
container_tasks='/run/containerd/io.containerd.runtime.v2.task/moby/* /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*'

# The label of a container that names the instance of the unit that runs it.
# shellcheck disable=SC2034  # used by files that need this one
instance_label=provision.instance

# containers_with_gpus: ids of the running containers that have NVIDIA's devices, without a single process.
containers_with_gpus() {
  for task in $container_tasks; do
    pid=
    read -r pid 2>/dev/null <"$task/init.pid" || [ -n "$pid" ] || continue
    [ -e "/proc/$pid/root/dev/nvidiactl" ] || continue
    echo "${task##*/}"
  done
}
