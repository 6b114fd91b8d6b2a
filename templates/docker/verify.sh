# shellcheck shell=sh
# needs: docker/daemon_json.sh
# What verification asks of dockerd.

# dockerd_in_force: the command line of the running dockerd. Where daemon.json was written after dockerd started, a line
# "younger" and what dockerd has in force since its last reload, which it tells in its journal alone.
dockerd_in_force() {
  read -r pid <"$docker_pid" 2>/dev/null || [ -n "$pid" ] || return
  echo "command $(tr '\0' ' ' <"/proc/$pid/cmdline")"
  # shellcheck disable=SC3013  # dash, bash and busybox know -nt
  [ "$daemon_json" -nt "$docker_pid" ] || return 0
  echo younger
  timeout -k 5 20 journalctl --no-pager -q -o cat -u docker.service --since "@$(stat -c %Y "$docker_pid")" |
    sed -n 's/.*msg="Reloaded configuration: \(.*\)"$/reloaded \1/p' | tail -n 1
}
