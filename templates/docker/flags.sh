# shellcheck shell=sh
# needs: shell/own_units.sh
# The flags that systemd starts dockerd with, once it has read what is on disk.

# Begins the line before each file.
flags_section='== '

# Folders of unit files; what an earlier one has hides the same name in later ones (systemd.unit(5)).
unit_folders="$unit_folder /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system"

# docker_unit_files: the files of docker.service, and the environment files that they name, each below a line with its
# kind and its path. Without a process where there are no drop-ins.
docker_unit_files() {
  environment=
  unit_at docker.service
  dropins=
  for folder in $unit_folders; do
    for file in "$folder"/service.d/*.conf "$folder"/docker.service.d/*.conf; do
      if [ -e "$file" ]; then dropins="$dropins ${file##*/}"; fi
    done
  done
  if [ -n "$dropins" ]; then
    # shellcheck disable=SC2086  # names in a row
    for name in $(printf '%s\n' $dropins | sort -u); do unit_at "docker.service.d/$name" || unit_at "service.d/$name"; done
  fi
  for file in $environment; do show_file environment "${file#-}"; done
  :
}

# unit_at NAME: the file of this name that counts; false if there is none.
unit_at() {
  for folder in $unit_folders; do
    [ -e "$folder/$1" ] || continue
    show_file unit "$folder/$1"
    return
  done
  return 1
}

# show_file KIND PATH: also notes the environment files that it names.
show_file() {
  [ -f "$2" ] || return 0
  printf '%s%s %s\n' "$flags_section" "$1" "$2"
  while IFS= read -r line || [ -n "$line" ]; do
    printf '%s\n' "$line"
    case $1$line in unitEnvironmentFile=?*) environment="$environment ${line#*=}" ;; esac
  done <"$2"
  echo
}
