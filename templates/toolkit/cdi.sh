# shellcheck shell=sh
# needs: toolkit/cdi_state.sh
# Steps with the CDI specs.

# cdi_is_fresh: the spec is of the loaded driver, and what it names can be found.
cdi_is_fresh() {
  read -r driver </sys/module/nvidia/version || return
  if ! grep -q -s -F -e "/libcuda.so.$driver" -e "/libnvidia-ml.so.$driver" "$cdi_spec"; then
    fail "$cdi_spec is not of driver $driver"
    return
  fi
  for information in /proc/driver/nvidia/gpus/*/information; do
    [ -r "$information" ] || continue
    minor=$(sed -n 's/^Device Minor:[[:space:]]*//p' "$information")
    # A GPU that is divided (MIG) is not named as a whole.
    [ -d "/proc/driver/nvidia/capabilities/gpu$minor/mig" ] || grep -q "/dev/nvidia$minor\$" "$cdi_spec" ||
      { fail "$cdi_spec lacks /dev/nvidia$minor"; return; }
  done
  nvidia-ctk cdi list 2>&1 | grep -q -x -F -e "$cdi_kind=all" || fail "nvidia-ctk cdi list does not show $cdi_kind=all"
}

# cdi_was_refreshed: by this run. Not everything that makes a spec stale shows in what cdi_is_fresh looks at.
cdi_was_refreshed() { [ -e "$run/before-cdi" ] && cdi_is_fresh; }

# refresh_cdi_spec: by the toolkit's own unit where that works, else by hand.
refresh_cdi_spec() {
  if [ ! -d /sys/module/nvidia ]; then
    echo "the driver is not loaded, so there is nothing to describe yet"
    return
  fi
  : >"$run/before-cdi"
  if systemctl cat "$refresh_unit.service" >/dev/null 2>&1; then
    # Without its units the spec is right for now; that it goes stale later is what the next plan says.
    systemctl enable --now "$refresh_unit.path" && systemctl enable "$refresh_unit.service" ||
      echo "$refresh_unit.path cannot be enabled"
    systemctl reset-failed "$refresh_unit.service" 2>/dev/null
    # It succeeds without doing anything where modules.dep does not name the driver.
    timeout -k 5 120 systemctl restart "$refresh_unit.service" || echo "$refresh_unit.service failed"
  fi
  if [ -z "$(find "$cdi_spec" -newer "$run/before-cdi" 2>/dev/null)" ]; then
    (umask 022 && mkdir -p "${cdi_spec%/*}" && timeout -k 5 120 nvidia-ctk cdi generate --output="$cdi_spec") || return
  fi
  cdi_is_fresh
}

# remove_cdi_specs FILE...: they stay in the backups.
remove_cdi_specs() {
  for spec in "$@"; do backup "$spec" && rm -f -- "$spec" || return; done
}
