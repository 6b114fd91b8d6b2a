# shellcheck shell=sh
# The kernels that count on a host: the running one, and the newest one that is installed.

# find_kernels: sets $running, $newest, and $kernels to both of them, or to the one that they are.
# A folder of modules without a kernel is what DKMS leaves of one that was removed. Debug kernels are booted only when
# somebody asks for them.
find_kernels() {
  read -r running </proc/sys/kernel/osrelease
  set --
  for k in /lib/modules/*/; do
    k=${k%/} k=${k##*/}
    case $k in *+debug) continue ;; esac
    if [ -e "/boot/vmlinuz-$k" ] || [ -e "/lib/modules/$k/vmlinuz" ]; then set -- "$@" "/lib/modules/$k"; fi
  done
  case $# in
    0) newest=$running ;;
    1) newest=$1 ;;
    *) newest=$(ls -d -v "$@") ;;
  esac
  newest=${newest##*/}
  # shellcheck disable=SC2034  # for the caller
  kernels=$running
  if [ "$newest" != "$running" ]; then
    # shellcheck disable=SC2034
    kernels="$running $newest"
  fi
}
