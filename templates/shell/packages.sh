# shellcheck shell=sh
# Packages of both families: which of them we hold, and words that apt and dnf share.

# The packages that we hold, one name a line; every other hold is somebody else's.
held=/var/lib/provision/held

# Exit code where that list is not as we write it.
# shellcheck disable=SC2034  # used by Python
held_is_damaged=66

# held_names [TEXT]: the packages that we hold, each behind a text.
held_names() {
  if [ ! -f "$held" ] || [ ! -r "$held" ]; then return 0; fi
  while read -r name || [ -n "$name" ]; do
    case $name in
      '') ;;
      *[!A-Za-z0-9.+_:~-]*) return "$held_is_damaged" ;;
      *) printf '%s\n' "${1-}$name" ;;
    esac
  done <"$held"
}

# list_ours: a line "ours NAME" for each package that we hold.
list_ours() { held_names 'ours '; }

# prefixed WORD FILE: its lines with a word before each.
prefixed() {
  [ ! -r "$2" ] || while IFS= read -r line || [ -n "$line" ]; do printf '%s %s\n' "$1" "$line"; done <"$2"
}

# is_ours NAME: the hold on this package, if there is one, is ours.
is_ours() { grep -q -x -F -e "$1" "$held" 2>/dev/null; }

# note_ours NAME...: writes down that the holds on these packages are ours.
note_ours() {
  { cat "$held" 2>/dev/null; printf '%s\n' "$@"; } | sort -u >"$held.new" && keep_held
}

# keep_held: what was written beside it takes its place; a file that is only renamed can be empty when power fails.
keep_held() { sync "$held.new" && mv -f "$held.new" "$held"; }

# Functions of roles that tell more of an installation that failed; a role's file adds its own.
explainers=

# explain_failure: what they tell.
explain_failure() { for explainer in $explainers; do "$explainer"; done; }

# uncut COMMAND...: which changes packages, so that no end of the run cuts it: a lock on the file pid says that it works.
uncut() { flock -s -o "${run:?}/pid" "$@"; }

# among WORD "WORD...": it is one of them.
among() {
  case " $2 " in *" $1 "*) ;; *) return 1 ;; esac
}
