# shellcheck shell=sh
# needs: shell/packages.sh
# What dpkg knows of packages, and whether their files are as they came. Files are looked at without a process, and read
# only where they are younger than their installation: a driver has hundreds of megabytes.

# What dpkg keeps of each package.
dpkg_info=/var/lib/dpkg/info

# Files of packages that dpkg has put elsewhere for another package: three lines each, the first is the path.
diversions=/var/lib/dpkg/diversions

# Bytes that dpkg-query may print: the shell that keeps them must not take the host's memory.
most_known=1000000

# Exit code where it prints more, or what no dpkg-query does.
no_dpkg=65

# deb_states NAME...: the packages that we hold and an empty line; a line for each damaged file of these packages; a line
# with tabs for each package that dpkg knows; dpkg itself is one of them, as its architecture is the host's. Names may be
# globs. dpkg-query fails when it does not know one, and prints the others.
deb_states() {
  held_names || return
  echo
  form='${binary:Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n'
  all_known "$form" dpkg "$@"
  damaged_of "$known"
  printf '%s' "$known"
  return "$code"
}

# all_known FORM NAME...: puts into $known what dpkg-query prints, and into $code its exit code.
all_known() {
  known=$( { dpkg-query -W -f "$@"; printf '%s' "$?"; } | head -c "$most_known")
  if [ "${#known}" -lt "$((most_known - 1))" ]; then
    code=${known##*
}
    known=${known%"$code"}
    case $code in '' | *[!0-9]*) code=$no_dpkg ;; esac
  else
    code=$no_dpkg
  fi
  [ "$code" != "$no_dpkg" ] || known=''
}

# damaged_debs NAME...: the damaged files of these packages.
damaged_debs() {
  all_known '${binary:Package}\n' "$@" 2>/dev/null
  damaged_of "$known"
}

# damaged_of "LINE...": packages, with their architecture where dpkg tells it, are the first fields of the lines. For each
# file of theirs that is gone, or has other content than it came with: the word damaged, the package, and the path.
# Documentation does not count, and configuration is not among these files. In a subshell, which takes lines for words.
damaged_of() (
  diverted=
  [ ! -s "$diversions" ] || while read -r line; do diverted="$diverted $line "; done <"$diversions"
  set -f
  IFS='
'
  for line in $1; do
    sums=$dpkg_info/${line%%	*}.md5sums
    [ ! -e "$sums" ] || set -- "$@" "$sums"
  done
  shift
  # shellcheck disable=SC2013  # read takes a system call for each byte
  for line in $(grep -H -s -v '^[^ ]* *usr/share/' "$@" /dev/null); do
    package=${line%%.md5sums:*} line=${line#*.md5sums:}
    sum=${line%% *} path=${line#* } path=/${path# }
    case $diverted in *" $path "*) continue ;; esac
    if [ -e "$path" ]; then
      # shellcheck disable=SC3013  # dash, bash and busybox know -nt
      [ "$path" -nt "$package.list" ] || continue
      case $(md5sum <"$path") in "$sum "*) continue ;; esac
    fi
    printf 'damaged\t%s\t%s\n' "${package##*/}" "$path"
  done
  # Links have no sums.
  for sums in "$@"; do
    shift
    set -- "$@" "${sums%.md5sums}.list"
  done
  # shellcheck disable=SC2013
  for line in $(grep -H -s -E '^/(usr/)?(bin|sbin|lib)/' "$@" /dev/null); do
    package=${line%%.list:*} path=${line#*.list:}
    if [ -e "$path" ] || [ -L "$path" ]; then continue; fi
    case $diverted in *" $path "*) continue ;; esac
    printf 'damaged\t%s\t%s\n' "${package##*/}" "$path"
  done
)
