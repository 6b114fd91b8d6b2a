# shellcheck shell=sh
# Questions to dockerd over its socket. Docker's client takes ten times as long to start as dockerd to answer, and
# runs its plugins; Debian and Ubuntu always have perl, RHEL always has curl.

# Where dockerd listens.
docker_socket=/run/docker.sock

# Written by dockerd when it starts, after it has read its configuration.
docker_pid=/run/docker.pid

# Seconds for one answer; a sick dockerd gives none.
docker_patience=20

# Exit code of a question to a dockerd that runs and gives no answer in time.
dockerd_is_silent=75

# dockerd_runs: one that does not run is not asked, as systemd may listen on its socket and would start it.
dockerd_runs() {
  pid='' comm=''
  { read -r pid <"$docker_pid"; read -r comm <"/proc/${pid:-0}/comm"; } 2>/dev/null
  [ "$comm" = dockerd ] || systemctl is-active --quiet docker.service
}

# docker_says ARGUMENT...: what Docker's client says in some seconds.
docker_says() { dockerd_runs && timeout -k 5 20 docker "$@"; }

# ask_dockerd PATH...: the document and the status of each answer, in order; fewer if dockerd does not answer.
ask_dockerd() {
  dockerd_runs || return
  if command -v perl >/dev/null; then ask_by_perl "$@"; else ask_by_curl "$@"; fi
  told=$?
  # Of SIGALRM, and curl's own. A dockerd that is still starting is not there yet.
  case $told in
    142 | 28) ! systemctl is-active --quiet docker.service || return "$dockerd_is_silent" ;;
  esac
  return "$told"
}

ask_by_perl() {
  perl -e '
    $| = 1;
    my ($socket, $patience, @paths) = @ARGV;
    for my $path (@paths) {
      alarm $patience;
      socket(my $dockerd, 1, 1, 0) or die "no sockets: $!\n";
      connect($dockerd, pack("Sa*", 1, $socket)) or die "$socket: $!\n";
      syswrite $dockerd, "GET $path HTTP/1.0\r\n\r\n";
      my ($head, $body) = split /\r\n\r\n/, join("", <$dockerd>), 2;
      $head =~ /^\S+ (\d+)/ and print "$body $1\n";
    }' "$docker_socket" "$docker_patience" "$@"
}

ask_by_curl() {
  for path in "$@"; do
    curl --silent --show-error --http1.0 --max-time "$docker_patience" --unix-socket "$docker_socket" \
      --write-out ' %{http_code}\n' "http://dockerd$path" || return
  done
}

# started_after FILE: dockerd started after the last change of the file or of its name, by whole seconds. That is the
# time of the inode, which nobody can set; a link may lead to an old file since a moment ago.
started_after() {
  [ ! -L "$1" ] || return
  # shellcheck disable=SC2046  # two numbers
  set -- $(stat -c %Z -- "$docker_pid" "$1" 2>/dev/null)
  [ $# -eq 2 ] && [ "$1" -gt "$2" ]
}

# ask_dockerd_of FILE PATH OTHER...: asks for the others, and last for the path, which tells what dockerd has read of
# the file: only where it changed after dockerd started. dockerd runs three programs for /info. Where there is nothing to
# ask it says nothing, and tells by its exit code whether dockerd answers.
ask_dockerd_of() {
  file=$1 last=$2
  shift 2
  started_after "$file" || set -- "$@" "$last"
  if [ $# -gt 0 ]; then ask_dockerd "$@"; else ask_dockerd /version >/dev/null; fi
}
