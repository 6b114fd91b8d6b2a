"""Sessions on hosts: Fabric made fit for fleets. The only package that imports Fabric and paramiko.

What is set here, and why:

- `dial.py`: the socket is ours. TCP_NODELAY and TCP_QUICKACK (Nagle's algorithm at either end costs 40 ms an
  exec on a fast network), keepalive and TCP_USER_TIMEOUT (a dead peer is noticed), IPv6 beside IPv4.
- `host_key_check.py`: keys are checked against inventory or known_hosts; Fabric accepts any (its issue 2071).
- `identities.py`: the key that the login names is offered, and no other.
- `session.py`: AES-GCM comes first, at half the CPU of paramiko's default. Every wait is bounded, where
  paramiko waits an hour for a channel (fabric issue 2197). Logins that sshd drops before its banner, because
  too many come at once (MaxStartups), are tried again.
- `frames.py`, `execution.py`: a script is one exec and one sudo, whatever the login shell prints; so are two
  of which the second depends on the first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import fabric

from provision.connection.client_config import ssh_config
from provision.connection.execution import (
    DeadlineError,
    Execution,
    ExpiredPasswordError,
    FloodError,
    UnfinishedError,
)
from provision.connection.expired_password import change_password
from provision.connection.host_key_check import expected_keys, revoked_keys
from provision.connection.login import Login
from provision.connection.session import close, opened
from provision.probe import Output

__all__ = [
    "Connection",
    "DeadlineError",
    "ExpiredPasswordError",
    "FloodError",
    "UnfinishedError",
    "knows",
    "revoked_keys",
    "ssh_config",
]

# Our errors say what paramiko logs with tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


class Connection:
    """One session on one host: a context manager, which also opens by itself at the first command.

    :ivar connects: sessions opened so far; those on jump hosts are not counted.
    :ivar execs: commands started so far.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        self.connects = 0
        self.execs = 0
        self._sessions: list[fabric.Connection] = []
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Connection {self.login.host} {self.login.user}@{self.login.address}:{self.login.port}>"

    def __enter__(self) -> Connection:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a session; one whose host died may still look open."""
        return len(self._sessions) == 1 + len(self.login.jump) and self._sessions[-1].is_connected

    def open(self) -> None:
        """Open the session, through the login's jump hosts; nothing happens where it is open.

        :raises UnreachableError: where that is not possible, with the reason.
        """
        with self._lock:
            if self.is_open:
                return
            self.close()
            try:
                for login in (*self.login.jump, self.login):
                    self._sessions.append(opened(login, self._sessions))
            except BaseException:
                self.close()
                raise
            self.connects += 1

    def close(self) -> None:
        """Close the session. Commands that still run on the host lose their output."""
        with self._lock:
            while self._sessions:
                close(self._sessions.pop())

    def run(
        self,
        script: str,
        *,
        timeout: float,
        on_line: Callable[[bytes], None] | None = None,
        stdin: bytes = b"",
        what: str = "a script",
        then: Callable[[Output], str] | None = None,
    ) -> Output:
        """Run POSIX sh text on the host with one exec, through one sudo where the login says so.

        The script runs in ``/`` with a fixed PATH, locale and umask; its standard input is ``stdin``.

        :param timeout: seconds it may take; then the host ends it.
        :param on_line: called with each line of standard output as it comes, without its newline; then
            standard output is not kept.
        :param what: names the script in errors.
        :param then: makes a second script of what the first one printed, which leaves its shell as it is. The
            same shell runs it, so there is one sudo for both; then its output alone is returned.
        :raises UnreachableError: where the session cannot be opened, or is lost.
        :raises DeadlineError: where the script takes longer than ``timeout``.
        :raises FloodError: where it prints more than an answer may have.
        :raises UnfinishedError: where its shell was killed.
        :raises HostError: where the host does not start it: no shell, no sudo, a wrong password.
        """
        self.open()
        self.execs += 1
        execution = Execution(self.login, timeout, what, on_line, then)
        try:
            return execution.run(self._sessions[-1].transport, script, stdin)
        except FloodError:
            self.close()  # sshd may go on sending, whatever the window allows
            raise

    def change_expired_password(self, new: str) -> None:
        """Change the password of the login, which has expired, on a terminal as sshd asks for it; then close.

        :raises HostError: where the host refuses the new one, or asks what we do not understand.
        """
        self.open()
        try:
            change_password(self._sessions[-1].transport, self.login, new)
        finally:
            self.close()


def knows(login: Login) -> bool:
    """Whether there is a key to check the host against: in the inventory or in a known_hosts file."""
    return bool(expected_keys(login))
