# shellcheck shell=sh
# needs: shell/files.sh shell/units.sh bare/sshd_match.sh
# The account that a machine is managed with from its first login on, and what sshd takes from then on.

# What puts the drop-in back that was there before, if nobody proves in time that a login still works.
unlock=/var/lib/provision/unlock.sh

# Seconds in which that must be proven.
unlock_after=120

# account_of USER: its line of passwd, then whether it has a password: set or none.
account_of() {
  getent passwd "$1" || return 0
  case $(getent shadow "$1" | cut -d : -f 2) in '' | '!'* | '*'*) echo none ;; *) echo set ;; esac
}

home_of() { getent passwd "$1" | cut -d : -f 6; }

# is_account USER: it is there, and can start a shell.
is_account() {
  case $(getent passwd "$1") in '' | */nologin | */false) return 1 ;; esac
}

# make_account USER
make_account() {
  if getent passwd "$1" >/dev/null; then
    usermod --shell /bin/bash "$1"
  else
    # With "!" in the place of the password, sshd without PAM takes no key either.
    useradd --create-home --shell /bin/bash --password '*' "$1"
  fi
}

has_password() { [ "$(account_of "$1" | tail -n 1)" = set ]; }

# authorized_keys_of USER
authorized_keys_of() {
  home=$(home_of "$1")
  [ ! -f "$home/.ssh/authorized_keys" ] || cat "$home/.ssh/authorized_keys"
}

# takes_keys USER "TYPE BASE64"...: of the lines with a key the first one counts, and may limit what the key is for.
takes_keys() {
  keys=$(authorized_keys_of "$1")
  shift
  for key in "$@"; do
    case $(printf '%s\n' "$keys" | grep -m 1 -F -e "${key#* }") in "$key" | "$key "*) ;; *) return 1 ;; esac
  done
}

# authorize USER KEY...: in front of the keys that are there, which stay. The user writes it, whose folder it is.
authorize() {
  user=$1 home=$(home_of "$1")
  shift
  backup "$home/.ssh/authorized_keys" || return
  # Where there is a login shell of another kind, this still is sh.
  printf '%s\n' "$@" | runuser -u "$user" -- sh -c 'umask 077
    mkdir -p "$0/.ssh" && cd "$0/.ssh" && chmod go-w . &&
      { cat; [ ! -f authorized_keys ] || cat authorized_keys; } >.provision.new && sync .provision.new &&
      mv -f .provision.new authorized_keys
  ' "$home" || return
  if command -v restorecon >/dev/null; then restorecon -R "$home/.ssh"; fi
}

# write_sudoers FILE, the rule in base64 on standard input: only what visudo takes gets there.
write_sudoers() {
  command -v visudo >/dev/null || { fail "sudo is not installed"; return; }
  cat >"$run/sudoers.base64" && base64 -d <"$run/sudoers.base64" >"$run/sudoers" && visudo -c -f "$run/sudoers" &&
    write_file "$1" 0440 root:root <"$run/sudoers.base64"
}

# sshd_for USER: what sshd takes of this user, as its files say.
sshd_for() {
  sshd -T -C "user=$1,host=localhost,addr=192.0.2.1" |
    grep -E '^(passwordauthentication|kbdinteractiveauthentication|permitrootlogin) '
}

# sshd_state "USER..." LINE...: a word for each user, option and value; what lets in more than the lines;
# whether the last lock is still to be proven; after an empty line what is in the drop-in.
sshd_state() {
  for user in $1; do sshd_for "$user" | sed "s/^/$user /"; done
  shift
  if sshd -t 2>/dev/null; then sshd_exceptions "$@"; fi
  [ ! -e "$unlock" ] || echo unproven
  echo
  [ ! -f "$sshd_drop_in" ] || cat "$sshd_drop_in"
}

# sshd_obeys "USER..." LINE...: for these users, and in all Match blocks.
sshd_obeys() {
  for user in $1; do
    said=$(sshd_for "$user")
    for line in "$@"; do
      [ "$line" = "$1" ] || printf '%s\n' "$said" | grep -q -x -F -e "$line" || {
        fail "sshd does not take this of $sshd_drop_in: $line"
        return
      }
    done
  done
  shift
  exceptions=$(sshd_exceptions "$@" | tr "\t" " ")
  [ -z "$exceptions" ] || fail "this lets in more: $exceptions"
}

# lock_sshd "USER..." LINE..., the drop-in in base64 on standard input. sshd tests all of its files with it first.
lock_sshd() {
  wanted=$(base64 -d) || return
  { printf '%s\n' "$wanted"; cat "$sshd_config"; } >"$run/sshd_config" && sshd -t -f "$run/sshd_config" &&
    arm_unlock && printf '%s\n' "$wanted" | base64 | write_file "$sshd_drop_in" 0644 root:root || return
  if sshd -t && sshd_obeys "$@"; then return; fi
  undo_lock
  return 1
}

# open_sshd: without the drop-in.
open_sshd() { keep_lock && backup "$sshd_drop_in" && rm -f "$sshd_drop_in" && sshd -t; }

# arm_unlock: whoever is locked out by what comes next can log in again when the time is over.
arm_unlock() {
  systemctl stop provision-unlock.timer 2>/dev/null
  if [ ! -e "$unlock" ]; then
    rm -f "$unlock.before"
    [ ! -f "$sshd_drop_in" ] || cp -p "$sshd_drop_in" "$unlock.before" || return
  fi
  {
    printf 'drop_in=%s\n' "$sshd_drop_in"
    cat <<'END'
if [ -e "$0.before" ]; then mv -f "$0.before" "$drop_in"; else rm -f "$drop_in"; fi
systemctl reload-or-restart ssh.service || systemctl reload-or-restart sshd.service
rm -f "$0"
END
  } >"$unlock" && systemd-run --quiet --collect --unit=provision-unlock --on-active="$unlock_after" \
    --timer-property=AccuracySec=1s /bin/sh "$unlock"
}

# undo_lock: at once.
undo_lock() {
  systemctl stop provision-unlock.timer 2>/dev/null
  [ -e "$unlock" ] || return 0
  before=$(sshd_began)
  sh "$unlock" && wait_until 20 sshd_began_after "$before"
}

# keep_lock: a login has proven that it locks nobody out who is needed.
keep_lock() {
  systemctl stop provision-unlock.timer 2>/dev/null
  rm -f "$unlock" "$unlock.before"
}

# reload_sshd: sessions go on, this one too. Until sshd has read its files, it would still let in whom it did before.
reload_sshd() {
  before=$(sshd_began)
  systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service || return
  wait_until 20 sshd_began_after "$before"
}

# sshd_began: when it last read its files; it writes the file with its pid anew then, if it has one.
sshd_began() {
  pid_file=$(sshd -T -C user=root,host=localhost,addr=192.0.2.1 | sed -n 's/^pidfile //p')
  [ "$pid_file" != none ] && stat -c %y "$pid_file"
}

# sshd_began_after TIME: where sshd tells no time, a moment has to do.
sshd_began_after() {
  if [ -z "$1" ]; then sleep 2; return; fi
  began_now=$(sshd_began 2>/dev/null) && [ "$began_now" != "$1" ]
}
