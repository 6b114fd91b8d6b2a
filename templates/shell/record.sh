# shellcheck shell=sh
# needs: shell/packages.sh shell/own_units.sh
# What roles have left on a host, so that it can go when nobody wants it any more.

# A line for each thing that a role left: the role, a blank, and what it is: file:PATH; before:PATH for a file that was
# there before us; folder:PATH; hold:NAME, package:NAME and image:NAME; keys:PATH for keys in a file of others.
record=/var/lib/provision/ours

# Lines of the record that are read, and bytes of each: we write a few hundred.
most_recorded=10000
longest_recorded=5000

# recorded: each line of the record after a word: here; gone for files and holds that are not there any more; other for
# what is no file, or is not ours by name or mark: somebody made it in the place of ours, or wrote its line.
recorded() {
  if [ ! -f "$record" ] || [ ! -r "$record" ]; then return 0; fi
  names=' '
  [ ! -r "$held" ] || while [ "${#names}" -lt 100000 ] && read -r name; do names="$names$name "; done <"$held"
  lines=0
  while read -r line || [ -n "$line" ]; do
    lines=$((lines + 1))
    if [ "$lines" -gt "$most_recorded" ] || [ "${#line}" -gt "$longest_recorded" ]; then
      echo "more than $most_recorded lines, or one of more than $longest_recorded bytes" >&2
      return 1
    fi
    item=${line#* } there=here
    case $item in
      file:*) look_at "${item#file:}" "${line%% *}" ;;
      hold:*) case $names in *" ${item#hold:} "*) ;; *) there=gone ;; esac ;;
    esac
    printf '%s %s\n' "$there" "$line"
  done <"$record"
}

# look_at PATH ROLE: says in $there that it is gone, or other.
look_at() {
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then
    there=gone
  elif [ ! -f "$1" ] || [ -L "$1" ]; then
    there=other
  elif has_unit_mark "$1"; then
    :
  elif [ "${1%/*}" = "$unit_folder" ] || ! may_go "$@"; then
    there=other
  fi
}

# may_go PATH ROLE: what our own roles wrote says so by name or mark; a site's own roles write what they like.
may_go() {
  case $2 in driver | toolkit | docker | triton) is_of_provision "$1" ;; esac
}

# remember LINE...: in the record, before what they name is made. A file that is there is only ours if its name or its
# first lines say so.
remember() {
  for line in "$@"; do remember_one "$line" || return; done
}

# remember_one "ROLE ITEM"
remember_one() {
  ! in_record "$1" || return 0
  role=${1%% *} path=${1#* file:}
  if [ "$path" = "$1" ]; then
    add_to_record "$1"
  elif [ -e "$path" ] && in_record "$role before:$path"; then
    return
  elif is_of_provision "$path"; then
    while [ ! -e "${path%/*}/" ]; do
      path=${path%/*}
      add_to_record "$role folder:$path" || return
    done
    add_to_record "$1"
  else
    add_to_record "$role before:$path"
  fi
}

# are_remembered LINE...: what they name is in the record, or was there before us.
are_remembered() {
  for line in "$@"; do
    in_record "$line" || in_record "${line%% *} before:${line#* file:}" || return
  done
}

in_record() { grep -q -s -x -F -e "$1" "$record"; }

# add_to_record LINE: whole or not at all.
add_to_record() {
  { cat "$record" 2>/dev/null; printf '%s\n' "$1"; } >"$record.new" && keep_record
}

# keep_record: what was written beside it takes its place.
keep_record() { sync "$record.new" && mv -f "$record.new" "$record"; }

# forget_file PATH: whoever makes such a file from now on, it is not ours.
forget_file() {
  in_record_of_any "file:$1" || return 0
  path=$1 awk '{ item = $0; sub(/^[^ ]* /, "", item) } item != "file:" ENVIRON["path"]' "$record" >"$record.new" &&
    keep_record
}

in_record_of_any() { cut -d ' ' -f 2- "$record" 2>/dev/null | grep -q -x -F -e "$1"; }

# forget_gone: files and holds that somebody else took away.
forget_gone() {
  [ -e "$record" ] || return 0
  recorded >"$record.all" && sed -n '/^gone /!s/^[a-z]* //p' "$record.all" >"$record.new" && rm "$record.all" &&
    keep_record
}

# is_of_provision PATH: it is not there yet, or was made by us.
is_of_provision() {
  [ ! -L "$1" ] || return
  [ -e "$1" ] || return 0
  case $1 in /usr/local/lib/provision/* | /usr/local/share/provision/*) return ;; esac
  case ${1##*/} in provision-* | [0-9][0-9]provision-* | [0-9][0-9]-provision-*) return ;; esac
  head -c 4096 -- "$1" | head -n 3 | grep -q -a 'Written by provision'
}
