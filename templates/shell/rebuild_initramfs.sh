# shellcheck shell=sh
# needs: shell/initramfs.sh
# The initramfs made anew.

# rebuild_initramfs: of all kernels: without -k, update-initramfs rebuilds that of the newest only, and dracut that of
# the running one.
rebuild_initramfs() {
  if command -v update-initramfs >/dev/null; then
    update-initramfs -u -k all
  elif command -v dracut >/dev/null; then
    dracut --force --regenerate-all
  fi
}

# initramfs_is_newer FILE
initramfs_is_newer() {
  for image in $(stale_images "$1"); do
    fail "$image is older than $1"
    return
  done
}
