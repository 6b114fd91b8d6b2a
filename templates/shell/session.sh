# shellcheck shell=sh
# needs: shell/environment.sh
# The loader of a script: sent as one line in the command line that the login shell reads, which may be csh. So every
# line here is a whole command, without single quotes and exclamation marks.

# Exit code where the script did not arrive whole; ssh(1) uses the same for its own failures.
script_cut_off=255

# mark_streams TOKEN: ends what rc files printed, on both streams.
mark_streams() { printf "<%s>\n" "$1"; printf "<%s>\n" "$1" >&2; }

# skip_unread TOKEN: drops the password where sudo did not read it.
skip_unread() { while IFS= read -r line; do [ "$line" = "$1" ] && break; done; unset line; }

# refuse_part: ends a session whose script was cut off.
refuse_part() { echo "the script was cut off on its way here" >&2; exit "$script_cut_off"; }

# read_script TOKEN COMMAND...: sets $script to what the command reads of standard input, which must end with the token.
read_script() { token=$1; shift; script=$("$@"); case $script in *"#$token") ;; *) refuse_part ;; esac; unset token; }

# settle: where every script runs, and with what.
settle() { cd / || :; umask 022; forget_rc_files; set_environment; }

# forget_rc_files: unsets what they may set that changes what programs print or load; proxy settings stay.
forget_rc_files() { unset LANGUAGE BASH_ENV ENV CDPATH TMPDIR POSIXLY_CORRECT GREP_OPTIONS; forget_loaders; }
forget_loaders() { unset LD_LIBRARY_PATH LD_PRELOAD PYTHONPATH PYTHONHOME; }
