# shellcheck shell=sh
# needs: shell/dockerd.sh
# Who uses the GPUs.

# gpu_users: a line for each process that uses the driver, its own daemons aside, for each other kernel module on top of
# it, and for each running container.
gpu_users() {
  {
    find /proc/[0-9]*/fd -maxdepth 1 -lname '/dev/nvidia*' 2>/dev/null
    grep -l -s -E '/lib(cuda|nvidia-ml)\.so' /proc/[0-9]*/maps
  } | cut -d/ -f3 | sort -un | while read -r pid; do
    read -r comm 2>/dev/null <"/proc/$pid/comm" || continue
    case $comm in nvidia-persiste* | nv-fabricmanage*) continue ;; esac
    printf 'process %s %s %s\n' "$pid" "$(tr '\n ' '  ' <"/proc/$pid/cgroup" | tr -d ' ')" "$comm"
  done
  for holder in /sys/module/nvidia/holders/*; do
    case ${holder##*/} in '*' | nvidia_uvm | nvidia_drm | nvidia_modeset | nvidia_peermem) continue ;; esac
    echo "holder ${holder##*/}"
  done
  if command -v docker >/dev/null 2>&1; then
    docker_says ps --no-trunc --format 'container {{.ID}} {{.Image}} {{.Names}}'
  fi
  :
}

# nouveau_idle: prints idle where nothing uses nouveau: no open device, no console on its framebuffer.
nouveau_idle() {
  if [ "$(cat /sys/module/nouveau/refcnt 2>/dev/null)" = 0 ] && ! grep -q -s nouveau /proc/fb; then echo idle; fi
}
