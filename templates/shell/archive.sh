# shellcheck shell=sh
# needs: shell/docker_room.sh shell/progress.sh
# Archives of images. What one holds is read before dockerd takes it: a load takes a name from the image that has it.

# How archives are fetched.
curl_options='--fail --show-error --location --globoff --connect-timeout 20'

# Bytes of an archive's lists of images; those of docker save have some thousands.
most_of_lists=1048576

# load_archive REF ARCHIVE: that archive, or the same with .gz or .zst, which must hold this image alone; 2 where there
# is none of them. It goes to dockerd as it is read, so nothing is left of what is cut.
load_archive() {
  archive=$2 found=
  case $archive in
    /*) ;;
    *) command -v curl >/dev/null || { echo "curl is not installed, which would fetch $archive: the registry is asked"; return 2; } ;;
  esac
  for candidate in "$archive" "$archive.gz" "$archive.zst"; do
    size=$(archive_size "$candidate") && found=$candidate && break
  done
  [ -n "$found" ] || { echo "there is no $archive, nor with .gz or .zst: the registry is asked"; return 2; }
  # dockerd unpacks the archive first, and then its layers.
  has_room "$1 from $found" "$((${size:-0} * 2))" || return
  case $found in
    /*) read_it='dd if="$wanted" bs=1M status=progress' ;;
    *) read_it="curl $curl_options --speed-limit 1 --speed-time $pull_patience --progress-bar \"\$wanted\"" ;;
  esac
  # Each hands on what it has not packed. Not every dockerd reads zstd by itself.
  case $found in *.zst) unpack=zstd ;; *) unpack=gzip ;; esac
  command -v "$unpack" >/dev/null || { fail "$unpack is not installed, which would read $found"; return; }
  list_archive && holds_alone "$1" || return 1
  loaded_as=$read_it
  [ "$unpack" = gzip ] || loaded_as="$read_it | zstd -d -c -f"
  tags >"$run/tags" || return 1
  archive_step "$loaded_as | docker load"
  loaded=$?
  put_back_tags "$1" <"$run/tags" || return 1
  [ "$loaded" -eq 0 ] || return 1
  timeout -k 5 60 docker image inspect "$1" >/dev/null 2>&1 && return
  brought=$(sed -n 's/^.*Loaded image\( ID\)\{0,1\}: //p' "$run/last" | paste -s -d ' ')
  fail "$found brought ${brought:-no image}, and not $1"
}

# tags: the id and the name of every image that has one.
tags() {
  timeout -k 5 60 docker image ls --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' >"$run/all" || return
  grep -v '<none>' "$run/all" || :
}

# put_back_tags REF: each name that was in $run/tags but this one stands for its image again; fails if one did not. An
# archive may be read otherwise by dockerd than here.
put_back_tags() {
  tags >"$run/now" || return
  moved=$(grep -v -x -F -f "$run/now" "$run/tags" | while read -r id name; do
    [ "$name" != "$1" ] || continue
    timeout -k 5 20 docker tag "$id" "$name" </dev/null >&2 || echo "$name could not be put back to $id" >&2
    printf ' %s' "$name"
  done)
  rm -f "$run/tags" "$run/now" "$run/all"
  [ -z "$moved" ] || fail "$found also took$moved from other images, which have their names again"
}

# archive_step COMMAND: sh text that reads $wanted, which is the archive; its last lines are in $run/last.
archive_step() {
  if command -v script >/dev/null; then
    with_progress "the load of $found" "$found" "$1"
  else
    wanted=$found /bin/sh -c "$1" >"$run/last"
  fi
}

# list_archive: the archive's lists of images go to $run/lists, and what tar says of them to $run/listed. All of the
# archive is read, as a later member takes the place of one before it.
list_archive() {
  rm -f "$run/cut"
  archive_step "{ $read_it || : >'$run/cut'; } | $unpack -d -c -f |
    tar -x -P -vv -O --wildcards -f - '*manifest.json' '*index.json' '*repositories' 2>'$run/listed' |
    head -c $((most_of_lists + 1)) >'$run/lists'"
}

# holds_alone REF: what list_archive has read names this image and no other.
holds_alone() {
  says=$(sed -n 's/^tar: //p' "$run/listed" | grep -v -e 'Not found in archive' -e 'Exiting with' | head -n 1 | cut -b 1-200)
  if [ "$(wc -c <"$run/lists")" -gt "$most_of_lists" ]; then
    problem="its list of images is larger than 1 MiB"
  elif [ -e "$run/cut" ]; then
    problem=${says:-"it cannot be read to its end"}
  elif grep -q '^[bchlps][-rwxsStT]\{9\} ' "$run/listed"; then
    problem="its list of images is no regular file"
  elif ! has_member manifest && { has_member repositories || ! has_member index; }; then
    problem="it has no manifest.json${says:+: $says}"
  elif [ -n "$(LC_ALL=C tr -d '\11\12\15\40-\133\135-\176' <"$run/lists" | head -c 1 | tr '\0' 0)" ]; then
    problem="names in its list of images are written with codes"
  else
    others=$(other_names "$1" <"$run/lists")
    case $?:$others in
      0:) problem= ;;
      0:*) problem="it holds $others besides $1" ;;
      *) problem="it holds ${others:-no image with a name}, and not $1" ;;
    esac
  fi
  rm -f "$run/cut" "$run/lists" "$run/listed"
  [ -z "$problem" ] || fail "nothing of $found was loaded: $problem"
}

# has_member NAME: the archive has such a list at its top.
has_member() { grep -q "^-.* \(\./\)*$1\(\.json\)\{0,1\}\$" "$run/listed"; }

# other_names REF: the first names of images but this one in lists on standard input; succeeds if this one is among
# them. Docker takes names from manifest.json, and containerd from index.json.
other_names() {
  tr -d '\n\r\t' | grep -o '"[^"]*"\|[][{}:,]' | awk -v wanted="$1" '
    function familiar(name) {
      sub(/^docker\.io\//, "", name)
      sub(/^library\//, "", name)
      return name ~ /:[^\/]*$/ ? name : name ":latest"
    }
    $0 == ":" { key = tolower(text); next }
    $0 == "[" { row = 1; next }
    $0 == "{" { row = 0; key = ""; next }
    $0 == "]" || $0 == "}" { row = 0; key = ""; next }
    $0 == "," { if (!row) key = ""; next }
    {
      text = substr($0, 2, length($0) - 2)
      # One that is only a tag is no name.
      named = key == "repotags" || key == "io.containerd.image.name" || \
        (key == "org.opencontainers.image.ref.name" && text ~ /[:\/]/)
      if (!named) next
      if (familiar(text) == familiar(wanted)) there = 1
      else if (!(text in told) && count < 3) { told[text]; count++; line = line (count > 1 ? ", " : "") substr(text, 1, 200) }
    }
    END { print line; exit !there }'
}

# archive_size PATH-OR-ADDRESS: its bytes, if a server tells them; fails where it is not there.
archive_size() {
  case $1 in
    /*) [ -f "$1" ] && stat -L -c %s -- "$1" ;;
    *)
      # shellcheck disable=SC2086  # options are words
      curl $curl_options --silent --max-time 60 --head "$1" >"$run/head" &&
        tr -d '\r' <"$run/head" | sed -n 's/^[Cc]ontent-[Ll]ength: *//p' | tail -n 1
      ;;
  esac
}
