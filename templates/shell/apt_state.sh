# shellcheck shell=sh
# needs: shell/packages.sh shell/lines.sh
# What dpkg knows of packages, and whether their files are as they came. Files are looked at without a process, and read
# only where they are younger than their installation: a driver has hundreds of megabytes.

# What dpkg keeps of each package.
dpkg_info=/var/lib/dpkg/info

# Files of packages that dpkg has put elsewhere for another package: three lines each, the first is the path.
diversions=/var/lib/dpkg/diversions

# deb_states "WHOLE..." NAME...: the packages that we hold and an empty line; a line for each damaged file of the packages
# that WHOLE names; a line with tabs for each package that dpkg knows; dpkg itself is one of them, as its architecture is
# the host's. Names may be globs. dpkg-query fails when it does not know one, and prints the others.
deb_states() {
  lines_of "$held"
  echo
  set -f
  # shellcheck disable=SC2086  # globs in a row
  damaged_debs $1
  set +f
  shift
  dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n' dpkg "$@"
}

# damaged_debs NAME...: for each file of these packages that is gone, or has other content than it came with: the word
# damaged, the package with its architecture where dpkg tells it, and the path. Documentation does not count, and
# configuration is not among these files.
damaged_debs() {
  diverted=
  [ ! -s "$diversions" ] || while read -r line; do diverted="$diverted $line "; done <"$diversions"
  names=' ' globs=
  for name in "$@"; do
    case $name in *[*?]*) globs="$globs $name" ;; *) names="$names$name " ;; esac
  done
  # The folder has thousands of files, so it is read once.
  set +f
  set -- "$dpkg_info"/*.md5sums
  set -f
  for sums in "$@"; do
    name=${sums##*/} name=${name%.md5sums} name=${name%%:*}
    case $names in
      *" $name "*) ;;
      *) like_one_of "$name" "$globs" || continue ;;
    esac
    [ ! -r "$sums" ] || damaged_of <"$sums"
  done
}

# like_one_of NAME "GLOB...": whether the name matches one of these globs.
like_one_of() {
  for glob in $2; do
    # shellcheck disable=SC2254  # a glob
    case $1 in $glob) return 0 ;; esac
  done
  return 1
}

# damaged_of, the sums of a package on standard input.
damaged_of() {
  package=${sums##*/} package=${package%.md5sums}
  while read -r sum path; do
    case $path in usr/share/*) continue ;; esac
    case $diverted in *" /$path "*) continue ;; esac
    if [ -e "/$path" ]; then
      # shellcheck disable=SC3013  # dash, bash and busybox know -nt
      [ "/$path" -nt "${sums%.md5sums}.list" ] || continue
      case $(md5sum <"/$path") in "$sum "*) continue ;; esac
    fi
    printf 'damaged\t%s\t/%s\n' "$package" "$path"
  done
}
