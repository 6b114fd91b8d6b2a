# shellcheck shell=sh
# needs: shell/file_state.sh
# Which sources of packages there are.

# Files of sources: apt's main file, and the folders of apt and of dnf.
apt_main=/etc/apt/sources.list
apt_sources=/etc/apt/sources.list.d
dnf_sources=/etc/yum.repos.d

# other_sources FAMILY "NAME..." TEXT...: the contents of every file of sources that holds one of the texts, or has one
# of the names before its ending.
other_sources() {
  case $1 in
    debian) folder=$apt_sources endings='list sources' files=$apt_main ;;
    rhel) folder=$dnf_sources endings=repo files= ;;
  esac
  named=$2
  shift 2
  for text; do
    set -- "$@" -e "$text"
    shift
  done
  for ending in $endings; do files="$files $folder/*.$ending"; done
  # shellcheck disable=SC2046,SC2086  # the shell finds the files; their names are words
  set -- $(grep -l -s -F "$@" $files)
  for name in $named; do
    for ending in $endings; do [ ! -f "$folder/$name.$ending" ] || set -- "$@" "$folder/$name.$ending"; done
  done
  [ $# -eq 0 ] || contents "$@"
}
