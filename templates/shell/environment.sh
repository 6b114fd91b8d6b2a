# shellcheck shell=sh
# The environment of everything that runs on a host. Whole commands a line, as session.sh has them.

# Where programs are found on a host.
session_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Locale of all programs, so that their messages can be read.
session_locale=C.UTF-8

# set_environment: the same for every script.
set_environment() { LC_ALL=$session_locale PATH=$session_path; export LC_ALL PATH; }
