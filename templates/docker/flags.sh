# shellcheck shell=sh
# The flags that systemd starts dockerd with.

# Begins the line before each file.
flags_section='== '

# docker_unit_files: the files of docker.service, and the environment files that they name, each below a line with its
# kind and its path.
docker_unit_files() {
  command -v systemctl >/dev/null || return 0
  shown=$(timeout 20 systemctl show -p LoadState,FragmentPath,DropInPaths,EnvironmentFiles docker.service)
  case $shown in *LoadState=loaded*) ;; *) return 0 ;; esac
  printf '%s\n' "$shown" | sed -n 's/^FragmentPath=//p; s/^DropInPaths=//p' | tr ' ' '\n' |
    show_files unit
  printf '%s\n' "$shown" | sed -n 's/^EnvironmentFiles=\(.*\) (.*$/\1/p' | show_files environment
  :
}

# show_files KIND, paths on standard input.
show_files() {
  while read -r file; do
    [ -f "$file" ] && printf '%s%s %s\n' "$flags_section" "$1" "$file" && cat -- "$file" && echo
  done
}
