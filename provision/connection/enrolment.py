"""Unknown host keys: fetched, to be shown, and written to known_hosts when an operator has agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from provision.connection import knows
from provision.connection.host_key_check import expected_keys, refuse_revoked
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.connection.session import fetch_host_key
from provision.data import at_home
from provision.errors import HostError, UsageError

AT_ONCE = 50
"""Hosts whose keys are fetched at the same time."""

MOST_NAMED = 3
"""Names of hosts in one sentence."""

NEW_KEYS = (
    "clones of one image? on all: rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh (RHEL: sshd); "
    "one machine with two names? give both its key in the inventory: host_key"
)


def new_keys(
    logins: Iterable[Login],
    say: Callable[[str], None],
    fetch: Callable[[Login], HostKey] = fetch_host_key,
) -> list[tuple[Login, HostKey]]:
    """The keys of all unknown hosts; a known host is left alone even where it shows another key.

    Hosts that do not answer, show a revoked key, or one that another host has, too, are reported through
    ``say`` and left out: the run itself fails on them.
    """
    logins = list(logins)

    def ask(login: Login) -> HostKey | HostError:
        try:
            key = fetch(login)
            refuse_revoked(login, key)
        except HostError as error:
            return error
        return key

    unknown = [login for login in logins if not knows(login)]
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        answers = list(pool.map(ask, unknown))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for hosts
    shown = [(login, key) for login, key in zip(unknown, answers, strict=True) if isinstance(key, HostKey)]
    twins = shared([*shown, *((login, key) for login in logins for key in expected_keys(login))])
    for login, answer in zip(unknown, answers, strict=True):
        if isinstance(answer, HostError):
            say(f"{answer}")
        elif twin := twins.get(login):
            say(f"{twin}\n  hint: {twin.hint}")
    return [(login, key) for login, key in shown if login not in twins]


def shared(keys: Iterable[tuple[Login, HostKey]]) -> dict[Login, HostError]:
    """The hosts of which another one has the same key, each with a sentence about it.

    Names of one address and port are one machine.
    """
    owners: dict[HostKey, dict[str, Login]] = {}
    for login, key in keys:
        owners.setdefault(key, {}).setdefault(login.known_as, login)
    found: dict[Login, HostError] = {}
    for key, logins in owners.items():
        names = [login.host for login in logins.values()]
        for login in logins.values() if len(names) > 1 else ():
            others = [name for name in names if name != login.host]
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            names_others = ", ".join(others[:MOST_NAMED]) + more
            message = f"it has the host key of {names_others}, so each can pretend to be the other"
            message = f"{message}: {key.kind} {key.fingerprint}"
            found.setdefault(login, HostError(login.host, message, hint=NEW_KEYS))
    return found


def record(keys: Iterable[tuple[Login, HostKey]]) -> None:
    """Append the keys to the first known_hosts file of each login, as ssh(1) does.

    :raises UsageError: if a file cannot be written.
    """
    for login, key in keys:
        path = at_home(login.known_hosts[0])
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(0)
                glue = b"" if file.read()[-1:] in (b"", b"\n") else b"\n"
                file.write(glue + f"{login.known_as} {key.kind} {key.base64}\n".encode())
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", hint="name another UserKnownHostsFile") from error
