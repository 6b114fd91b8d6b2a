# shellcheck shell=sh
# What programs such as cat and ls print, by the shell itself: for a few lines that costs less than to start them.

# lines_of FILE...: the lines of small text files; nothing for what cannot be read, or is no file.
lines_of() {
  for file in "$@"; do
    [ -f "$file" ] || continue
    [ -r "$file" ] || continue
    while IFS= read -r line || [ -n "$line" ]; do printf '%s\n' "$line"; done <"$file"
  done
}

# names_in FOLDER: the names in it.
names_in() {
  for path in "$1"/*; do [ ! -e "$path" ] || printf '%s\n' "${path##*/}"; done
}
