# shellcheck shell=sh
# needs: shell/packages.sh
# What apt-get would do.

# apt_preview ARGUMENT...: the packages that we hold, and what apt-get install would do with these arguments.
apt_preview() {
  list_ours
  set -- install --no-install-recommends --allow-change-held-packages "$@"
  if [ -n "${planned_etc-}" ]; then
    set -- -o Dir::Etc="$planned_etc" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@"
  fi
  apt-get -s -q -y -o APT::Color=0 -o APT::Ignore-Hold=true "$@" 2>&1
}

# with_planned_files: makes a copy of apt's folder. Calls of write_file that follow write to the copy, and apt_preview
# asks apt with it, because pins and sources that earlier steps will write decide what apt does. It redefines
# write_file, so it belongs in a subshell; every probe has one.
with_planned_files() {
  planned_etc=$(mktemp -d) && trap 'rm -rf "$planned_etc"' EXIT && cp -a /etc/apt/. "$planned_etc" || exit
  write_file() {
    file=$planned_etc/${1#/etc/apt/}
    mkdir -p "${file%/*}" && base64 -d >"$file" || exit
  }
}
