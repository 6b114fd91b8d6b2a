# shellcheck shell=sh
# Questions to dockerd over its socket. Docker's client takes ten times as long to start as dockerd to answer, and
# runs its plugins; Debian and Ubuntu always have perl, RHEL always has curl.

# Where dockerd listens.
docker_socket=/run/docker.sock

# Seconds for one answer; a sick dockerd gives none.
docker_patience=20

# ask_dockerd PATH...: the document and the status of each answer, in order; fewer if dockerd does not answer.
ask_dockerd() {
  if command -v perl >/dev/null; then
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
    return
  fi
  for path in "$@"; do
    curl --silent --show-error --http1.0 --max-time "$docker_patience" --unix-socket "$docker_socket" \
      --write-out ' %{http_code}\n' "http://dockerd$path" || return
  done
}
