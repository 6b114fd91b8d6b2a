# shellcheck shell=sh
# What lets in more than the drop-in, whatever it has: Match blocks, which `sshd -T` tells of one connection only, what
# sshd was started with, and what its files say before they include the drop-in.

sshd_config=/etc/ssh/sshd_config

# What sshd reads first: the first value of an option counts, and the files of this folder are read in their order.
sshd_drop_in=/etc/ssh/sshd_config.d/00-provision.conf

# Where sshd of Debian, Ubuntu and RHEL has its pid.
sshd_pid_file=/run/sshd.pid

# For awk: NUMBER, OPTION and VALUE of the lines of a file that matter, as sshd_config(5) has them: in any case, with
# or without "=" and quotes. Options have their present name. A blank in a quoted name of a file becomes a "?".
sshd_match_lines='BEGIN {
  FS = OFS = "\t"
  split("match include passwordauthentication permitrootlogin kbdinteractiveauthentication", names, " ")
  for (number in names) option[names[number]] = names[number]
  option["challengeresponseauthentication"] = option["skeyauthentication"] = "kbdinteractiveauthentication"
}
{
  gsub(/[\t\r\f]/, " ")
  sub(/^ +/, "")
  if (!match($0, /^"?[A-Za-z]+"? *=? */)) next
  name = tolower(substr($0, 1, RLENGTH))
  value = substr($0, RLENGTH + 1)
  gsub(/[^a-z]/, "", name)
  if (!(name in option)) next
  if (name == "include") {
    count = split(value, parts, /["\047]/)
    value = ""
    for (number = 1; number <= count; number++) {
      if (number % 2 == 0) gsub(/ /, "?", parts[number])
      value = value parts[number]
    }
  } else gsub(/["\047]/, "", value)
  if (name != "match" && name != "include") { value = tolower(value); sub(/[ #].*/, "", value) }
  sub(/ +$/, "", value)
  print NR, option[name], value
}'

# sshd_included PATTERN: the files of a pattern in the order in which sshd reads them; the drop-in is one of them also
# where it does not exist yet.
sshd_included() {
  {
    for file in $1; do
      [ ! -f "$file" ] || printf '%s\n' "$file"
    done
    # shellcheck disable=SC2254 # both are patterns
    case ${sshd_drop_in%/*} in ${1%/*}) case ${sshd_drop_in##*/} in ${1##*/}) printf '%s\n' "$sshd_drop_in" ;; esac ;; esac
  } | LC_ALL=C sort -u
}

# sshd_matched FILE [CRITERIA]: FILE:LINE, OPTION, VALUE and CRITERIA of what a file sets, and the files that it
# includes; without criteria it is for everybody. A line "drop-in" stands where sshd reads the drop-in. A block ends
# with its file, and an included file is a part of the block that includes it.
sshd_matched() (
  cd "${sshd_config%/*}" && awk "$sshd_match_lines" "$1" | {
    criteria=${2-}
    while IFS='	' read -r number option value; do
      case $option in
        match) criteria="Match $value" ;;
        include)
          set -f # sshd looks for the files of patterns, too
          for pattern in $value; do
            set +f
            case $pattern in /*) ;; *) pattern=${sshd_config%/*}/$pattern ;; esac
            sshd_included "$pattern" | while IFS= read -r file; do
              if [ "$file" != "$sshd_drop_in" ]; then
                sshd_matched "$file" "$criteria"
              elif [ -z "$criteria" ]; then
                echo drop-in
              fi
            done
          done
          set +f
          ;;
        *) printf '%s:%s\t%s\t%s\t%s\n' "$1" "$number" "$option" "$value" "${criteria:-everybody}" ;;
      esac
    done
  }
)

# sshd_started FILE: the same of the options in a command line as /proc has it, which go before the files.
sshd_started() {
  tr '\000\t' '  ' <"$1" | grep -o -i -E -e '-o *[a-z]+(=| +)[a-z-]+' | sed 's/^-o *//' | awk "$sshd_match_lines" |
    while IFS='	' read -r number option value; do
      printf "sshd's command line\t%s\t%s\teverybody\n" "$option" "$value"
    done
}

# sshd_lets_in VALUE: how much a value of an option lets in, the more the higher.
sshd_lets_in() {
  case $1 in no) echo 0 ;; forced-commands-only) echo 1 ;; *-password) echo 2 ;; *) echo 3 ;; esac
}

# sshd_before: of lines as sshd_matched has them those that go before the drop-in: of what is for everybody the first
# one of each option, and nothing where sshd does not read the drop-in.
sshd_before='BEGIN { FS = OFS = "\t" }
$1 == "drop-in" { for (number = 1; number <= count; number++) print first[number]; exit }
$4 == "everybody" { if (!seen[$2]++) first[++count] = $0 }'

# sshd_exceptions LINE...: what lets in more than these lines of `sshd -T`, as sshd_matched has it.
sshd_exceptions() {
  started=/proc/$(cat "$sshd_pid_file" 2>/dev/null)/cmdline
  {
    said=$(sshd_matched "$sshd_config")
    printf '%s\n' "$said" | awk "$sshd_before"
    printf '%s\n' "$said" | grep '	Match '
    [ ! -f "$started" ] || sshd_started "$started"
  } | while IFS='	' read -r place option value criteria; do
    for line in "$@"; do
      if [ "${line% *}" = "$option" ] && [ "$(sshd_lets_in "$value")" -gt "$(sshd_lets_in "${line#* }")" ]; then
        printf '%s\t%s\t%s\t%s\n' "$place" "$option" "$value" "$criteria"
      fi
    done
  done
}
