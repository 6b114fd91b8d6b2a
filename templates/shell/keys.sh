# shellcheck shell=sh
# needs: shell/files.sh shell/file_state.sh
# Keys of repositories, fetched by their fingerprint.

# The first and the last line of a key.
key_begins='-----BEGIN PGP PUBLIC KEY BLOCK-----'
key_ends='-----END PGP PUBLIC KEY BLOCK-----'

# fetch_key ADDRESS FINGERPRINT PATH MODE OWNER:GROUP: the file is written only if it holds this key.
fetch_key() {
  # curl before 8.4 knows no limit where a server does not say how much there is; 4096 blocks are 2 or 4 MiB.
  (ulimit -f 4096 && curl --fail --silent --show-error --location --globoff --connect-timeout 20 --max-time 60 \
    --max-filesize "$largest_file" --output "$run/key" --url "$1") ||
    fail "the host could not fetch the key $2 from $1" || return
  holds_key "$run/key" "$2" "$1" || return
  base64 <"$run/key" | write_file "$3" "$4" "$5"
}

# holds_key FILE FINGERPRINT [ADDRESS]: the file, fetched from there, is this primary key, ASCII-armoured, alone.
holds_key() {
  command -v gpg >/dev/null || fail "gpg is not installed: dnf install gnupg2" || return
  if sed "/^$key_begins/,/^$key_ends/d" "$1" | grep -q '[^[:space:]]'; then
    fail "there is something else than an ASCII-armoured key in ${3-$1}" || return
  fi
  (umask 077 && mkdir -p "$run/gnupg") || return
  gpg --homedir "$run/gnupg" --batch --with-colons --show-keys "$1" >"$run/keys" 2>/dev/null ||
    fail "there is no whole OpenPGP key in ${3-$1}" || return
  # A line "fpr" follows each key, and each subkey, which is not asked about.
  found=$(awk -F : '$1 == "fpr" && key ~ /^(pub|sec)$/ { print $10 } { key = $1 }' "$run/keys" | paste -s -d ' ' -)
  [ "$found" = "$2" ] || fail "the key of ${3-$1} has fingerprint $found, expected $2"
}
