# shellcheck shell=sh
# needs: shell/dockerd.sh
# Room for images, where Docker has them.

# Gigabytes that must be free before a pull. NVIDIA's images of tritonserver are never smaller: with TensorRT-LLM the
# smallest release has 14 GB unpacked (NVIDIA's support matrix, 26.03), with other backends all have more than 5.
least_room_trtllm=14
least_room_triton=5
least_room_other=1

# room_of REF: the bytes that must be free. An image of another name may have any size.
room_of() {
  case $1 in
    nvcr.io/nvidia/tritonserver:*trtllm*) echo "${least_room_trtllm}000000000" ;;
    nvcr.io/nvidia/tritonserver:*-py3 | nvcr.io/nvidia/tritonserver:*-py3@*) echo "${least_room_triton}000000000" ;;
    *) echo "${least_room_other}000000000" ;;
  esac
}

# has_room WHAT BYTES: they are free where images lie; also where nobody can tell, as without a dockerd that answers.
has_room() {
  at=$(image_folder) && [ -d "$at" ] || return 0
  free=$(df -P -k -- "$at" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')
  [ "${free:-$2}" -lt "$2" ] || return 0
  fail "$1 needs $(in_gb "$2") GB, and $(in_gb "$free") GB are free in $at"
}

in_gb() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1e9 }'; }

# image_folder: dockerd's own, or that of containerd where it has the images. A containerd that dockerd starts has its
# folder in dockerd's.
image_folder() {
  info=$(docker_says info --format '{{.DockerRootDir}}{{println}}{{.DriverStatus}}' 2>/dev/null) || return
  folder=$(printf '%s\n' "$info" | head -n 1)
  case $info in
    *io.containerd.snapshotter*)
      if [ ! -S /run/docker/containerd/containerd.sock ]; then
        folder=$(timeout -k 5 20 containerd config dump 2>/dev/null | sed -n "s/^root *= *[\"']\(.*\)[\"'] *\$/\1/p")
        folder=${folder:-/var/lib/containerd}
      fi
      ;;
  esac
  printf '%s\n' "$folder"
}
