# shellcheck shell=sh
# needs: driver/kernels.sh
# Loaded kernel modules.

# module_states [v|-]FOLDER...: a line for each folder of /sys/module: absent, or the versions that are loaded and
# installed, - for one that is not told. modinfo is asked only where the version counts (v).
module_states() {
  for d in "$@"; do
    ask=${d%%/*} d=/${d#*/}
    if [ ! -d "$d" ]; then
      echo absent
      continue
    fi
    v=''
    installed=''
    [ -r "$d/version" ] && read -r v <"$d/version"
    case $ask${d##*/} in
      vnvidia) find_installed version ;;
      v*) installed=$(modinfo -F version "${d##*/}" 2>/dev/null) ;;
    esac
    printf 'loaded %s %s\n' "${v:--}" "${installed:--}"
  done
}
