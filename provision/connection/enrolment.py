"""Unknown host keys: fetched, to be shown, and written to known_hosts when an operator has agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from provision.connection import fetch_host_key, knows
from provision.connection.login import Login
from provision.errors import HostError, UsageError


@dataclass(frozen=True)
class NewKey:
    """The key that an unknown host shows.

    :ivar line: its line for a known_hosts file.
    :ivar file: the file to append it to.
    """

    host: str
    kind: str
    fingerprint: str
    line: str
    file: Path


def new_keys(logins: Iterable[Login], say: Callable[[str], None]) -> list[NewKey]:
    """The keys of all unknown hosts; a known host is left alone even where it shows another key.

    Hosts that do not answer are reported through ``say`` and left out: the run itself fails on them.
    """
    found = []
    for login in logins:
        if knows(login):
            continue
        try:
            kind, fingerprint, line = fetch_host_key(login)
        except HostError as error:
            say(f"{error}")
            continue
        found.append(NewKey(login.host, kind, fingerprint, line, Path(login.known_hosts[0]).expanduser()))
    return found


def record(keys: Iterable[NewKey]) -> None:
    """Append the keys to their files, as ssh(1) does.

    :raises UsageError: if a file cannot be written.
    """
    for key in keys:
        try:
            key.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with key.file.open("a", encoding="utf-8") as file:
                file.write(f"{key.line}\n")
        except OSError as error:
            raise UsageError(
                f"{key.file}: {error.strerror}", hint="name another UserKnownHostsFile"
            ) from error
