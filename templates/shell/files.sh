# shellcheck shell=sh
# needs: shell/record.sh
# Files.

# Folder of what was replaced or removed, a folder for each run.
backups=/var/backups/provision

# How many backups of one file are kept, and for how many days, if the host's settings do not say otherwise.
kept_backups=20
backup_days=90

# holds FILE SHA256: the file has this content.
holds() { [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]; }

# owned PATH "MODE OWNER:GROUP"
owned() { [ "$(stat -L -c '%04a %U:%G' -- "$1" 2>/dev/null)" = "$2" ]; }

# backup PATH: keeps what is there before it is replaced or removed.
backup() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  kept=$backups/${run##*/}$1
  mkdir -p -- "${kept%/*}" && cp -a -- "$1" "$kept"
}

# prune_backups: the newest of each file stays. Folders of runs are named by their time.
prune_backups() {
  [ -d "$backups" ] || return 0
  oldest=$(date -u -d "-$backup_days days" +%Y%m%dT%H%M%SZ) && cd "$backups" || return
  find . -mindepth 2 ! -type d -printf '%P\n' | grep -E '^[0-9]{8}T[0-9]{6}Z-' | sort -t/ -k1,1r |
    awk -F/ -v most="$kept_backups" -v oldest="$oldest" \
      '{ n = ++seen[substr($0, length($1) + 1)]; if (n > 1 && (n > most || $1 < oldest)) print }' |
    xargs -d '\n' -r rm -f -- && find . -mindepth 1 -type d -empty -delete
}

# write_file PATH MODE OWNER:GROUP, the content in base64 on standard input: whole or not at all.
write_file() {
  file=$(readlink -m -- "$1") || return
  folder=${file%/*}
  (umask 022 && mkdir -p -- "${folder:-/}") || return
  backup "$file" || return
  # One run writes at a time: what is there under such a name is of one that was cut.
  rm -f -- "${folder:-}"/.provision.??????
  new=$(mktemp -- "${folder:-}/.provision.XXXXXX") || return
  if base64 -d >"$new" && chown "$3" "$new" && chmod "$2" "$new" && sync "$new" && mv -f -T -- "$new" "$file"; then
    sync "${folder:-/}"
  else
    rm -f -- "$new"
    return 1
  fi
  case $file in /etc/apt/*) rm -f "$run/apt-is-fresh" ;; esac
}

# remove_file PATH: into the backups; and the folders that we made for it, if nothing else is in them.
remove_file() {
  backup "$1" && rm -f -- "$1" && forget_file "$1" || return
  folder=${1%/*}
  while grep -q -s -e "^[^ ]* folder:$folder\$" "$record" && rmdir -- "$folder" 2>/dev/null; do folder=${folder%/*}; done
}

# make_directory PATH MODE OWNER:GROUP
make_directory() { (umask 022 && mkdir -p -- "$1") && chmod "$2" "$1" && chown "$3" "$1"; }
