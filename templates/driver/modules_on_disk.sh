# shellcheck shell=sh
# needs: driver/kernels.sh
# The driver's kernel modules on disk.

# modules_on_disk: a line for each kernel: release, version of its module (- for none, ? if it tells none), whether it
# has headers, and NAME/VERSION of what DKMS has installed for it.
# The books are read because "dkms status" takes 0.2 to 0.4 s for two versions and kernels. Of several versions that are
# built, a link kernel-RELEASE-ARCH marks the one that is installed.
modules_on_disk() {
  find_kernels
  for k in $kernels; do
    headers=no built=
    find_module_version "$k" || module_version=-
    if has_headers "$k"; then headers=yes; fi
    for folder in "$dkms_tree"/nvidia*/*/"$k"/*/; do
      [ -d "$folder" ] || continue
      arch=${folder%/} added=${folder%"/$k/"*}
      arch=${arch##*/} tree=${added%/*}
      case ${tree##*/} in nvidia-fs | nvidia-peermem) continue ;; esac
      active=$tree/kernel-$k-$arch
      # shellcheck disable=SC3013  # dash, bash and busybox know -ef
      if [ ! -L "$active" ] || [ "$active" -ef "$folder" ]; then built="$built ${tree##*/}/${added##*/}"; fi
    done
    echo "$k ${module_version:-?} $headers$built"
  done
}
