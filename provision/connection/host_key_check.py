"""Which host keys are trusted, and the refusal of all others."""

from __future__ import annotations

import functools
import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import paramiko

from provision.connection.known_hosts import HostKey, KnownHosts
from provision.connection.login import DEFAULT_PORT, Login
from provision.data import EndlessError, at_home, content
from provision.errors import Location, UnreachableError

_parsing = threading.Lock()


def _known_hosts(paths: tuple[str, ...]) -> KnownHosts:
    files = [at_home(path) for path in paths]
    states = tuple((file, _stamp(file)) for file in files)
    with _parsing:  # one thread parses, and all others wait for it
        return _parsed(states)


@functools.cache
def _parsed(states: tuple[tuple[Path, tuple[int, int]], ...]) -> KnownHosts:
    """Return what files hold, parsed once for each state that they are in."""
    known = KnownHosts()
    for file, _ in states:
        try:
            known.add(content(file).decode(errors="surrogateescape"), str(file))
        except EndlessError:
            raise
        except OSError:
            continue  # ssh(1) skips what it cannot read, too
    return known


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def expected_keys(login: Login) -> tuple[HostKey, ...]:
    """Return the keys that the host may show: the inventory's, else those of the known_hosts files.

    :raises UnreachableError: for a known_hosts file that is a pipe or a device.
    """
    try:
        known = _known_hosts(login.known_hosts)
    except EndlessError as error:
        hint = "name another UserKnownHostsFile in ssh_config, or ansible_ssh_common_args"
        raise UnreachableError(login.host, f"{error.filename}: {error.strerror}", hint=hint) from None
    return tuple(key for key in _given_keys(login, known) if key not in known.revoked)


def revoked_keys(login: Login) -> Mapping[HostKey, Location]:
    """Return the revoked ones of the keys that are given for the host, with the line that revokes each.

    Those of lines that revoke a key and name the host count; those with a pattern may mean other hosts.
    """
    known = _known_hosts(login.known_hosts)
    keys = (*_given_keys(login, known), *known.revoked_for(login.known_as))
    return {key: known.revoked[key] for key in keys if key in known.revoked}


def _given_keys(login: Login, known: KnownHosts) -> tuple[HostKey, ...]:
    keys = tuple(map(HostKey.of, login.host_key)) or known.keys_of(login.known_as)
    if not keys and login.port != DEFAULT_PORT and not login.host_key_alias:
        keys = known.keys_of(login.address.lower())  # as ssh(1) does for ports that have no entry
    return keys


def refuse_revoked(login: Login, shown: HostKey) -> None:
    """Refuse a key that a known_hosts file revokes, whoever else trusts it.

    :raises UnreachableError: naming it.
    """
    if place := _known_hosts(login.known_hosts).revoked.get(shown):
        raise UnreachableError(
            login.host,
            f"the host key of {login.known_as} is revoked: {shown.kind} {shown.fingerprint} ({place})",
            hint="give the host a new key; or take that line out, if it is wrong",
        )


def other_names(login: Login, key: HostKey) -> tuple[str, ...]:
    """Names under which the known_hosts files have a key of the host, beside its own."""
    own = {login.known_as, login.address.lower(), login.host.lower()}
    return tuple(name for name in _known_hosts(login.known_hosts).names_of(key) if name not in own)


def to_take_away(login: Login) -> str:
    """Where the keys of :func:`expected_keys` stand: the inventory, or the commands that take them away."""
    if login.host_key:
        return "host_key in the inventory"
    for name in dict.fromkeys((login.known_as, login.address.lower())):
        files = [str(Path(file).expanduser()) for file in login.known_hosts]
        if holding := [file for file in files if _known_hosts((file,)).keys_of(name)]:
            return " and ".join(f"`ssh-keygen -R '{name}' -f {shlex.quote(file)}`" for file in holding)
    return "known_hosts"


class Pinned(paramiko.MissingHostKeyPolicy):
    """Goes on only where the host shows one of the expected keys; paramiko's own store stays empty."""

    def __init__(self, login: Login, expected: Sequence[HostKey]) -> None:
        self.login = login
        self.expected = expected

    def missing_host_key(self, _client: object, _hostname: str, key: paramiko.PKey) -> None:
        shown = HostKey(key.get_name(), key.get_base64())
        refuse_revoked(self.login, shown)
        if shown in self.expected:
            return
        host, name = self.login.host, self.login.known_as
        fingerprint = f"{shown.kind} {shown.fingerprint}"
        if not self.expected:
            record = (
                f"ssh to {name}, which records it" if self.login.is_jump_host else "record it with --enroll"
            )
            hint = f"compare it with `ssh-keygen -lf` on the host's own console, then {record}"
            raise UnreachableError(host, f"the host key of {name} is not known: {fingerprint}", hint=hint)
        trusted = ", ".join(f"{key.kind} {key.fingerprint}" for key in self.expected)
        anew = f"ssh to {name}" if self.login.is_jump_host else "--enroll"
        source = to_take_away(self.login) + ("" if self.login.host_key else f", then {anew}")
        raise UnreachableError(
            host,
            f"THE HOST KEY OF {name} HAS CHANGED: it shows {fingerprint}, trusted is {trusted}",
            hint=f"if the host was reinstalled, renew the key ({source}); else stop: somebody may listen in",
        )
