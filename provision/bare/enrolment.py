"""Host keys of many hosts held against what is known of them: from the network, or from logs of consoles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from provision.bare import console
from provision.connection.enrolment import AT_ONCE, shared
from provision.connection.host_key_check import expected_keys, other_names, refuse_revoked, to_take_away
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.connection.session import fetch_host_key
from provision.errors import HostError

Status = Literal["new", "known", "refused", "missing"]
"""Of a host's keys: to be recorded, trusted already, contradicting those that are; or there are none."""


@dataclass(frozen=True)
class Enrolment:
    """What became known of one host's keys.

    :ivar keys: those that it shows.
    :ivar message: why it is refused, or has no keys; of one that is trusted, what is wrong all the same.
    """

    login: Login
    status: Status
    keys: tuple[HostKey, ...] = ()
    message: str = ""
    hint: str = ""

    def text(self, width: int) -> list[str]:
        """A line for each key, or one that says why there is none; the name of the host has ``width``."""
        shown = [f"{key.kind:<19} {key.fingerprint}" for key in self.keys] or [self.message]
        return [f"{self.login.host:<{width}}  {self.status:<7}  {line}".rstrip() for line in shown]

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        keys = [{"type": key.kind, "fingerprint": key.fingerprint, "key": key.base64} for key in self.keys]
        error = {"message": self.message, "hint": self.hint or None} if self.message else None
        return {"status": self.status, "keys": keys, "error": error}


def judged(login: Login, keys: Sequence[HostKey]) -> Enrolment:
    """What a host shows, held against the inventory and the known_hosts files.

    One known key is enough to know a host; another key of a type that is known contradicts it.
    """
    try:
        known = expected_keys(login)
        for key in keys:
            refuse_revoked(login, key)
    except HostError as error:
        return Enrolment(login, "refused", tuple(keys), error.message, error.hint or "")
    if not known:
        return Enrolment(login, "new", tuple(keys))
    other = [key for key in keys if key not in known and key.kind in {one.kind for one in known}]
    if not other and set(keys) & set(known):
        return Enrolment(login, "known", tuple(keys))
    shown = ", ".join(f"{key.kind} {key.fingerprint}" for key in other or keys)
    trusted = ", ".join(f"{key.kind} {key.fingerprint}" for key in known)
    return Enrolment(
        login,
        "refused",
        tuple(keys),
        f"the key contradicts the known one: {login.known_as} shows {shown}, trusted is {trusted}",
        f"if the host was reinstalled, take the old key away ({to_take_away(login)}); "
        "else stop: somebody may listen in",
    )


def told_apart(rows: Sequence[Enrolment]) -> list[Enrolment]:
    """Refuse hosts that show the key of another one: whoever has the key of a clone can be all of them.

    One that is trusted already stays so, and is named.
    """
    known = ((row.login, key) for row in rows for key in expected_keys(row.login))
    twins = shared([*((row.login, key) for row in rows for key in row.keys), *known])
    return [
        replace(
            row,
            status="known" if row.status == "known" else "refused",
            message=twin.message,
            hint=twin.hint or "",
        )
        if row.status in ("new", "known") and (twin := twins.get(row.login))
        else row
        for row in rows
    ]


def elsewhere(row: Enrolment) -> str:
    """A remark on other names of known_hosts that have a key which is to be recorded; empty without one."""
    found = [name for key in row.keys if row.status == "new" for name in other_names(row.login, key)]
    if not found:
        return ""
    names = ", ".join(dict.fromkeys(found))
    return f"known_hosts has this key for {names}, too: is that the same machine, or a clone?"


def from_network(
    logins: Iterable[Login], fetch: Callable[[Login], HostKey] = fetch_host_key
) -> list[Enrolment]:
    """What hosts show when they are asked, all at the same time."""

    def ask(login: Login) -> Enrolment:
        try:
            return judged(login, [fetch(login)])
        except HostError as error:
            return Enrolment(login, "missing", (), error.message, error.hint or "")

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        return list(pool.map(ask, logins))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for hosts


@dataclass(frozen=True)
class Console:
    """The log of a console: its file, what it holds, and whose it is where the operator says so."""

    file: str
    text: str
    host: str | None = None


def from_consoles(
    logins: Sequence[Login],
    consoles: Iterable[Console],
    named: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
) -> list[Enrolment]:
    """What hosts printed on their consoles.

    :param named: what a host may call itself, in lower case → the inventory's hosts that it may be.
    :param say: is told of what is not taken, and why.
    """
    shown: dict[str, set[HostKey]] = {}
    for one in consoles:
        log = console.read(one.text, one.file)
        if not log.blocks:
            say(f"{one.file}: no host keys of cloud-init are in it")
        for block in log.blocks:
            host, reason = _owner(log, block, named, one)
            if not block.ended:
                say(f"{block.where}: the block of host keys has no end; nothing is taken from it")
            elif host is None:
                hint = f"if you know whose log that is: --from-console HOST={one.file}"
                say(f"{block.where}: {reason}; nothing is taken from this block\n  hint: {hint}")
            else:
                for place, reason in block.damaged.items():
                    say(f"{place}: {reason}; nothing is taken from this line")
                shown.setdefault(host, set()).update(block.keys)
    if others := sorted(shown.keys() - {login.host for login in logins}):
        say(f"left out, because --hosts does not name them: {', '.join(others)}")
    return [_printed(login, sorted(shown.get(login.host, ()), key=str)) for login in logins]


def _owner(
    log: console.Log, block: console.Block, named: Mapping[str, Sequence[str]], one: Console
) -> tuple[str | None, str]:
    """The host of a block; a log of which the operator says whose it is may not name another one."""
    if one.host is None:
        return console.owner(log, block, named)
    others = {host for name in block.names | log.names for host in named.get(name.lower(), ())}
    if others and one.host not in others:
        return None, f"this log is said to be of {one.host}, and names {', '.join(sorted(others))}"
    return one.host, ""


def _printed(login: Login, keys: Sequence[HostKey]) -> Enrolment:
    if not keys:
        return Enrolment(login, "missing", (), "no log has a whole key of it with its fingerprint before it")
    if len({key.kind for key in keys}) < len(keys):
        return Enrolment(
            login,
            "refused",
            tuple(keys),
            "the logs have two different keys of one type: they are of two installations",
            "give the part of the log since the last one",
        )
    return judged(login, keys)
