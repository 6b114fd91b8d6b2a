# shellcheck shell=sh
# The driver's library.

# library_links: prints the paths under which the loader finds it, one for each architecture.
library_links() { ldconfig -p | sed -n 's/^[[:space:]]*libnvidia-ml\.so\.1 .*=> //p'; }

# driver_is_branch BRANCH: the installed library is of this branch. A transitional package has the version that
# was asked for, and brings the library of another branch.
driver_is_branch() {
  library=$(library_links | head -n 1)
  [ -n "$library" ] || fail "libnvidia-ml.so.1 is not installed" || return
  library=$(readlink -f "$library")
  case ${library##*.so.} in
    "$1".*) ;;
    *) fail "branch $1 was asked for, and the driver ${library##*.so.} is installed: its packages are transitional" ;;
  esac
}
