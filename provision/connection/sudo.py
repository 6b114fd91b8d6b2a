"""Refusals of sudo, translated into messages and hints. Pure.

sudo runs under LC_ALL=C.UTF-8, so the texts are sudo's own English, whatever the host's language: sudo
1.8 to 1.9 (plugins/sudoers) and sudo-rs, which Ubuntu 25.10 made the default.
"""

from __future__ import annotations

import re

_REFUSALS = (
    (
        rb"incorrect password attempt|[Aa]uthentication failed|[Mm]aximum \d+ incorrect",
        "sudo rejected the password of {user}",
        "is ansible_become_password right for {user}?",
    ),
    (
        rb"a password is required|interactive authentication is required|no password was provided",
        "sudo requires a password for {user}",
        "set ansible_become_password, or allow NOPASSWD in sudoers",
    ),
    (
        rb"must have a tty",
        "sudo requires a terminal (requiretty)",
        "remove `Defaults requiretty` from sudoers for {user}",
    ),
    (
        rb"not in the sudoers file|may not run sudo|is not allowed to (execute|run)|I'm afraid I can't",
        "{user} may not use sudo for this",
        "allow {user} to run any command in /etc/sudoers.d",
    ),
    (rb"unknown user", "sudo does not know the user to become", "is ansible_become_user right?"),
    (
        rb"account validation failure|[Aa]ccount expired|[Pp]assword (is )?expired",
        "the account of {user} is locked or expired",
        "log in once by hand, or see chage -l {user} on the host",
    ),
    (
        rb"sudo: \S+: command not found",
        "sudo finds no programs: its secure_path on the host leaves out the system's folders",
        "mend secure_path in /etc/sudoers or /etc/sudoers.d",
    ),
    (
        rb"sudo: [Pp]ermission denied",
        "{user} may not run the program sudo",
        "chmod 4755 /usr/bin/sudo on the host, as its package has it",
    ),
    (
        rb"sudo['\x80-\xff]*: (No such file|not found)|sudo: (command )?not found",
        "sudo is not installed",
        "install sudo on the host, or log in as root",
    ),
    (
        rb"must be owned by uid 0|effective uid is not 0|no new privileges|syntax error",
        "sudo on the host is broken",
        "log in by hand and see what sudo says",
    ),
)


def refusal(stderr: bytes, user: str) -> tuple[str, str] | None:
    """Return sentence and hint for what sudo printed, or None where that is not a known refusal."""
    for pattern, message, hint in _REFUSALS:
        if re.search(pattern, stderr):
            return message.format(user=user), hint.format(user=user)
    return None
