# shellcheck shell=sh
# needs: driver/kernels.sh
# Loading and unloading of kernel modules.

# load_module NAME
load_module() {
  if [ -d /sys/module/nouveau ]; then
    fail "nouveau is loaded and holds the GPU; it is blacklisted now, and gone after a reboot"
    return
  fi
  timeout -k 5 120 modprobe -- "$1"
}

# module_is NAME GLOB: loaded in a version that matches, which is also the installed one where that is known.
module_is() {
  read -r loaded <"/sys/module/$1/version" || return
  case $1 in
    nvidia) find_installed version ;;
    *) installed=$(modinfo -F version "$1" 2>/dev/null) ;;
  esac
  # shellcheck disable=SC2254  # the version is a pattern on purpose
  case $loaded in $2) ;; *) fail "$1 $loaded is loaded, wanted $2"; return ;; esac
  [ -z "$installed" ] || [ "$installed" = "$loaded" ] || fail "$1 $loaded is loaded, $installed is installed"
}

# The driver's own daemons: they hold the module, and may be stopped for a moment.
driver_daemons='nvidia-persistenced.service nvidia-fabricmanager.service'

# reload_module nvidia: with the modules on top of it; only while nothing but the driver's daemons uses them.
reload_module() {
  stopped=
  for unit in $driver_daemons; do
    if systemctl is-active --quiet "$unit"; then
      stopped="$unit $stopped"
      systemctl stop "$unit" || return
    fi
  done
  for module in nvidia_uvm nvidia_drm nvidia_modeset nvidia_peermem "$1"; do
    [ -d "/sys/module/$module" ] || continue
    timeout -k 5 60 modprobe -r -- "$module" && continue
    for unit in $stopped; do systemctl start "$unit"; done
    fail "reboot needed: kernel module $module is in use, so the new driver cannot be loaded"
    return
  done
  timeout -k 5 120 modprobe -- "$1" && timeout -k 5 120 modprobe -- nvidia-uvm || return
  for unit in $stopped; do systemctl start "$unit" || return; done
}

# unload_nouveau: only while nothing uses it, no device and no console.
unload_nouveau() {
  [ -d /sys/module/nouveau ] || return 0
  read -r users </sys/module/nouveau/refcnt || return
  [ "$users" = 0 ] || fail "reboot needed: nouveau is loaded and has $users users" || return
  if grep -q -s nouveau /proc/fb; then
    fail "reboot needed: nouveau is loaded and drives the console"
    return
  fi
  timeout -k 5 60 modprobe -r -- nouveau || fail "reboot needed: nouveau is loaded and cannot be unloaded"
}
