"""Seeds of many hosts: made, held against what is there, asked about, written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from provision.bare import disks
from provision.bare.accounts import unfit
from provision.bare.enrolment import judged
from provision.bare.seed import Machine, files
from provision.bare.seed_folder import KEY, Writing, key_of
from provision.bare.seed_settings import ACCOUNT, SEED, Seed, is_machine_name
from provision.cli import arguments, terminal
from provision.cli.options import Options
from provision.connection.enrolment import record
from provision.connection.host_key_check import to_take_away
from provision.connection.login import Login
from provision.errors import SettingsError, UsageError
from provision.inventory import Host
from provision.inventory.settings import read, refuse_misspelt
from provision.plan.report import counted
from provision.run import ways_in


@dataclass(frozen=True)
class _Made:
    """A seed, and what is to be done for it.

    :ivar made: whether its host key is new.
    :ivar unknown: whether the host key is to be recorded.
    """

    machine: Machine
    login: Login
    writing: Writing
    made: bool
    unknown: bool

    def text(self) -> str:
        """What was done, in a few lines."""
        writing, key = self.writing, self.machine.key.public
        rest = [name for name in writing.files if name not in (*writing.new, *writing.changed)]
        done = (
            ("written", writing.new),
            ("overwritten", writing.changed),
            ("removed", writing.stale),
            ("unchanged", rest),
        )
        shown = "".join(f"  {word}: {', '.join(names)}\n" for word, names in done if names)
        where = f", recorded in {self.login.known_hosts[0]}" if self.unknown else ""
        seed = self.machine.seed
        return (
            f"{self.machine.name}: {seed.system}, {seed.method}: {writing.folder}\n{shown}"
            f"  host key {'made' if self.made else 'kept'}: {key.kind} {key.fingerprint}{where}"
        )

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        writing, key = self.writing, self.machine.key.public
        return {
            "system": self.machine.seed.system,
            "method": self.machine.seed.method,
            "folder": str(writing.folder),
            "files": list(writing.files),
            "written": [*writing.new, *writing.changed],
            "removed": list(writing.stale),
            "host_key": {"type": key.kind, "fingerprint": key.fingerprint, "made": self.made},
            "known_hosts": self.login.known_hosts[0] if self.unknown else None,
        }


def write(
    options: Options, out: str, *, yes: bool, ask: Callable[[str, str], bool] = terminal.confirmed
) -> None:
    """Write the seeds of all selected hosts that have settings of one, and record their host keys.

    :raises UsageError: for settings that are refused, what contradicts a known host key, or without a yes.
    """
    if not out:
        raise UsageError("no folder is named", hint="--out DIR; each host has a folder below it")
    selected = arguments.select(options)
    seeded = [host for host in selected if host.settings(SEED) is not None]
    for host in selected:
        refuse_misspelt(host, {SEED: Seed})
    if not seeded:
        raise UsageError(
            f"none of {counted(len(selected), 'host')} has seed: in the inventory",
            hint="inv settings seed shows what it may have",
        )
    if without := [host.name for host in selected if host not in seeded]:
        terminal.log(f"left out, because they have no seed: {', '.join(without)}")
    made = [_made(host, login, Path(out)) for host, login in zip(seeded, ways_in.logins(seeded), strict=True)]
    _refuse_shared(made)
    for one in made:
        if one.writing.shown:
            name, file = one.machine.name, one.writing.folder / KEY
            terminal.log(
                f"{name}: others could read the host key of its seed, {file}\n"
                f"  hint: who did can be {name}; take it away for a new one, if no machine has it yet"
            )
    if (question := _question(made)) and not yes and not ask(question, "--yes"):
        raise UsageError("no seed was written", hint="name another folder to keep those that are there")
    for one in made:
        one.writing.write()
    record([(one.login, one.machine.key.public) for one in made if one.unknown])
    if options.json:
        terminal.write_json({"schema": 1, "hosts": {one.machine.name: one.document() for one in made}})
    else:
        terminal.write_data("\n".join(one.text() for one in made))


def _refuse_shared(made: Sequence[_Made]) -> None:
    """Refuse what two machines cannot both have.

    :raises UsageError: naming both.
    """
    owners: dict[tuple[str, str], str] = {}
    for one in made:
        machine, seed, network = one.machine, one.machine.seed, one.machine.seed.network
        values = {
            "the address in known_hosts": one.login.known_as,
            "the host name": machine.hostname.lower(),
            "seed.network.address": network and network.address and str(ip_interface(network.address).ip),
            "seed.network.mac": network and network.mac,
            "seed.disk": seed.disk and seed.method == "installer" and disks.serial(seed.disk),
            "the host key": machine.key.public.fingerprint,
        }
        for what, value in values.items():
            if value and (other := owners.setdefault((what, value), machine.name)) != machine.name:
                hint = f"inv inventory --host {machine.name} shows where each value stands"
                if what == "the host key":
                    hint = f"one is a copy: take {one.writing.folder / KEY} away, if no machine has it yet"
                raise UsageError(f"{other} and {machine.name} are both to have {what} {value}", hint=hint)


def _question(made: Sequence[_Made]) -> str:
    """What needs a yes: files that are there, and host keys that are trusted from now on."""
    changed = sum(len(one.writing.changed) for one in made)
    stale = [str(one.writing.folder / name) for one in made for name in one.writing.stale]
    unknown = [one.login.known_hosts[0] for one in made if one.unknown]
    asked = [f"overwrite {counted(changed, 'file')}"] if changed else []
    if stale:
        asked.append(f"remove {', '.join(stale)}")
    if unknown:
        where = ", ".join(dict.fromkeys(unknown))
        asked.append(f"record {counted(len(unknown), 'host key')} in {where}")
    question = " and ".join(asked)
    return f"{question[0].upper()}{question[1:]}?" if question else ""


def _made(host: Host, login: Login, out: Path) -> _Made:
    """The seed of a host, with the host key that its folder has, or a new one.

    :raises UsageError: for settings that are refused, or a host key that contradicts the known one.
    """
    settings = read(Seed, host, SEED)
    hostname = settings.hostname or host.name
    if not is_machine_name(hostname):
        raise SettingsError(
            f"{host.name} is not a name that a machine can have",
            where=host.where(SEED),
            hint="seed: {hostname: gpu-01.example.com}",
        )
    account = settings.account or login.user
    if not re.fullmatch(ACCOUNT, account) or account == "root":
        raise SettingsError(
            f"{host.name}: {account} is not an account that an installer makes",
            where=host.where(SEED),
            hint="ansible_user, or seed: {account: ops}: lower case, and not root",
        )
    if reason := unfit(settings, account):
        raise SettingsError(
            f"{host.name}: {reason}",
            where=host.where(SEED),
            hint="take another: ansible_user, or seed: {account: ops}",
        )
    key, new = key_of(out / host.name)
    found = judged(login, [key.public])
    if found.status == "refused":
        raise UsageError(
            f"{host.name}: the host key of its seed is refused: {found.message}",
            hint=f"name the --out of the earlier run; or, for a new key: {to_take_away(login)}",
        )
    machine = Machine(host.name, hostname, account, settings, key)
    texts = {KEY: key.private, f"{KEY}.pub": f"{key.public.kind} {key.public.base64}\n", **files(machine)}
    return _Made(machine, login, Writing.of(out / host.name, texts), new, found.status == "new")
