# shellcheck shell=sh
# Model repositories of instances, as they are on a host.

# Models and versions that are listed of all repositories together.
most_models=4000

# Units of 512 bytes: a model's configuration that is larger is not read.
largest_config=512

# Bytes of configurations that are read of all repositories together.
most_configs=2097152

# model_repositories FOLDER...: words that end in NUL: "r FOLDER" of each that is there, below it "m NAME" of each model, and
# below that "v NAME" of what may be a version, "c" if it has a configuration, and "o" if that is no file; "l NAME" of a model of which a part is
# a link, as it may point elsewhere in a container; "more" where there is more than is listed. Then an empty word, and an
# archive with the configurations.
model_repositories() {
  listed=0
  for repository in "$@"; do
    shift
    [ -d "$repository" ] || continue
    printf 'r %s\0' "$repository"
    for model in "$repository"/*; do
      if [ -L "$model" ]; then printf 'l %s\0' "${model##*/}"; continue; fi
      [ -d "$model" ] || continue
      listed=$((listed + 1))
      if [ "$listed" -gt "$most_models" ]; then printf 'more\0'; break; fi
      list_model "$model"
      if [ -f "$model/config.pbtxt" ]; then set -- "$@" "$model/config.pbtxt"; fi
    done
  done
  printf '\0'
  [ $# -eq 0 ] || find "$@" -maxdepth 0 -type f -size "-$largest_config" -print0 2>/dev/null |
    tar -c -P --no-recursion --numeric-owner --null -T - 2>/dev/null | head -c "$most_configs"
}

# list_model FOLDER
list_model() {
  for inside in "$1"/[0-9]* "$1/config.pbtxt"; do
    if [ -L "$inside" ]; then printf 'l %s\0' "${1##*/}"; return; fi
  done
  printf 'm %s\0' "${1##*/}"
  for inside in "$1"/[0-9]*; do
    [ -d "$inside" ] || continue
    listed=$((listed + 1))
    if [ "$listed" -gt "$most_models" ]; then printf 'more\0'; break; fi
    printf 'v %s\0' "${inside##*/}"
  done
  [ ! -e "$1/config.pbtxt" ] || printf 'c\0'
  # A start would wait for ever to read a pipe.
  [ ! -e "$1/config.pbtxt" ] || [ -f "$1/config.pbtxt" ] || printf 'o\0'
}
