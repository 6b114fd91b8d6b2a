# shellcheck shell=sh
# needs: shell/installed_kernels.sh
# The initramfs of the kernels that count.

# find_initramfs_images: sets $images to their files, where distributions put them.
find_initramfs_images() {
  images=
  find_kernels
  for k in $kernels; do
    for image in "/boot/initrd.img-$k" "/boot/initramfs-$k.img"; do
      if [ -e "$image" ]; then images="$images $image"; fi
    done
  done
}

# stale_images FILE...: a line for each file, with the images that are older. Listing what is in one takes seconds.
stale_images() {
  find_initramfs_images
  for file in "$@"; do
    stale=
    for image in $images; do
      # shellcheck disable=SC3013  # dash, bash and busybox know -nt
      if [ "$file" -nt "$image" ]; then stale="$stale $image"; fi
    done
    echo "$stale"
  done
}
