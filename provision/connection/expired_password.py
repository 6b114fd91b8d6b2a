"""A password that has to be changed at the login: what passwd asks, which sshd starts on a terminal."""

from __future__ import annotations

import re
import time

import paramiko

from provision.connection.login import Login
from provision.connection.session import PATIENCE, reason
from provision.errors import HostError, UnreachableError

CURRENT = re.compile(rb"current[^\n]*password: *$", re.IGNORECASE)
NEW = re.compile(rb"(new|retype)[^\n]*password: *$", re.IGNORECASE)
"""Prompts of passwd (shadow, Linux-PAM), which is asked to speak English."""

ANSWERS = 3
"""The current password, the new one, and the new one again; who asks once more has refused it."""


def change_password(transport: paramiko.Transport, login: Login, new: str) -> None:
    """Answer passwd's questions: the login's password, then ``new`` twice.

    :raises HostError: where passwd refuses the new password, or says what we do not understand.
    :raises UnreachableError: where the session is lost.
    """
    try:
        said, code = _converse(transport, login, new)
    except (paramiko.SSHException, OSError, EOFError) as error:
        message = f"the connection was lost while the password was changed: {reason(error)}"
        raise UnreachableError(
            login.host, message, hint="try both passwords by hand (ssh): which of them holds is not known"
        ) from None
    if code:
        lines = [line.strip() for line in said.decode("utf-8", "backslashreplace").splitlines()]
        last = next((line for line in reversed(lines) if line and not line.endswith(":")), "no message")
        for secret in filter(None, (login.password, new)):
            last = last.replace(secret, "***")
        raise HostError(
            login.host,
            f"the expired password of {login.user} could not be changed: {last[:200]}",
            hint="change it by hand: the host may want a longer one",
        )


def _converse(transport: paramiko.Transport, login: Login, new: str) -> tuple[bytes, int]:
    """What passwd printed, and its exit code; 1 where it asks too often, or something else."""
    channel = transport.open_session(timeout=PATIENCE)
    channel.settimeout(PATIENCE)
    said, unread, answers, until = b"", b"", 0, time.monotonic() + 2 * PATIENCE
    try:
        channel.update_environment({"LC_ALL": "C.UTF-8"})
        channel.get_pty(term="dumb", width=200)
        channel.invoke_shell()
        while data := channel.recv(4096):
            said, unread = said + data, unread + data
            answer = login.password if CURRENT.search(unread) else new if NEW.search(unread) else None
            if answer is not None:
                answers += 1
                if answers > ANSWERS:
                    return said, 1
                channel.sendall(answer.encode() + b"\n")
                unread = b""
            if len(said) > 1 << 16 or time.monotonic() > until:
                return said, 1
        channel.status_event.wait(PATIENCE)
        return said, channel.exit_status
    except TimeoutError:
        return said, 1
    finally:
        channel.close()
