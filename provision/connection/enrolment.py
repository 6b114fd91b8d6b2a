"""Unknown host keys: fetched, to be shown, and written to known_hosts when an operator has agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from provision.connection import knows
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.connection.session import fetch_host_key
from provision.errors import HostError, UsageError


def new_keys(
    logins: Iterable[Login],
    say: Callable[[str], None],
    fetch: Callable[[Login], HostKey] = fetch_host_key,
) -> list[tuple[Login, HostKey]]:
    """The keys of all unknown hosts; a known host is left alone even where it shows another key.

    Hosts that do not answer are reported through ``say`` and left out: the run itself fails on them.
    """
    found = []
    for login in logins:
        if knows(login):
            continue
        try:
            found.append((login, fetch(login)))
        except HostError as error:
            say(f"{error}")
    return found


def record(keys: Iterable[tuple[Login, HostKey]]) -> None:
    """Append the keys to the first known_hosts file of each login, as ssh(1) does.

    :raises UsageError: if a file cannot be written.
    """
    for login, key in keys:
        path = Path(login.known_hosts[0]).expanduser()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{login.known_as} {key.kind} {key.base64}\n")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", hint="name another UserKnownHostsFile") from error
