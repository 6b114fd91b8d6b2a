"""What sudo prints, and what we say."""

from __future__ import annotations

import pytest

from provision.connection.sudo import refusal


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        (b"sudo: a password is required\n", "sudo requires a password for bob"),
        (b"sudo: interactive authentication is required\n", "sudo requires a password for bob"),
        (
            b"\nsudo: no password was provided\nsudo: a password is required\n",
            "sudo requires a password for bob",
        ),
        (b"Sorry, try again.\nsudo: 1 incorrect password attempt\n", "sudo rejected the password of bob"),
        (b"sudo: Authentication failed, try again.\n", "sudo rejected the password of bob"),
        (b"bob is not in the sudoers file.\n", "bob may not use sudo for this"),
        (
            b"Sorry, user bob is not allowed to execute '/bin/sh' as root on h.\n",
            "bob may not use sudo for this",
        ),
        (b"Sorry, user bob may not run sudo on h.\n", "bob may not use sudo for this"),
        (b"sudo: I'm sorry bob. I'm afraid I can't do that\n", "bob may not use sudo for this"),
        (b"sudo: sorry, you must have a tty to run sudo\n", "sudo requires a terminal (requiretty)"),
        (b"sudo: unknown user: nobdy\n", "sudo does not know the user to become"),
        (b"sudo: unknown user nobdy\n", "sudo does not know the user to become"),
        (b'sudo: Account expired or PAM config lacks an "account" section\n', "locked or expired"),
        ("env: \u2018sudo\u2019: No such file or directory\n".encode(), "sudo is not installed"),
        (b"env: 'sudo': No such file or directory\n", "sudo is not installed"),
        (b"bash: sudo: command not found\n", "sudo is not installed"),
        (b"sudo: timeout: command not found\n", "sudo finds no programs"),
        (b"sh: 1: sudo: Permission denied\n", "bob may not run the program sudo"),
        (
            b"sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set\n",
            "sudo on the host is broken",
        ),
    ],
)
def test_refusals(stderr: bytes, sentence: str) -> None:
    found = refusal(stderr, "bob")
    assert found is not None
    assert sentence in found[0]
    assert found[1]


@pytest.mark.parametrize(
    "stderr", [b"", b"sudo: unable to resolve host h: Name or service not known\n", b"\xff\xfe"]
)
def test_what_is_no_refusal(stderr: bytes) -> None:
    assert refusal(stderr, "bob") is None
