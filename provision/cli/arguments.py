"""What arguments of the command line mean: hosts, their logins and settings, run names."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from getpass import getpass, getuser
from pathlib import Path
from socket import gethostname

from provision.cli import terminal
from provision.cli.options import Options
from provision.cli.progress import Progress
from provision.connection import knows, revoked_keys
from provision.connection.enrolment import new_keys, record
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.connection.session import fetch_host_key
from provision.data import beside, data, require_end
from provision.errors import InventoryError, UsageError
from provision.inventory import Host, Inventory, sources
from provision.plan.saved import AGAIN, SavedPlans
from provision.resource import RenderedFile
from provision.resources.reboot import REBOOT
from provision.role import Role
from provision.roles import choose, with_site
from provision.roles.driver.role import BRANCH_CHANGE
from provision.run import fleet, ways_in
from provision.run.target import Target


def load_inventory(path: str) -> Inventory:
    """The inventory at ``path``, or the default one; its warnings are shown.

    :raises InventoryError: if it cannot be read.
    """
    loaded = sources.load([path or sources.default_path()])
    for warning in loaded.warnings:
        terminal.log(f"warning: {warning}")
    return loaded


def select(options: Options) -> tuple[Host, ...]:
    """The hosts that the pattern of ``--hosts`` names.

    :raises UsageError: if there is no pattern, or it names nothing.
    """
    if not options.hosts:
        raise UsageError(
            "no hosts are named", hint="--hosts PATTERN; inv inventory --graph shows what there is"
        )
    return load_inventory(options.inventory).select(options.hosts)


def approved_targets(options: Options, approved: SavedPlans) -> tuple[list[Target], Mapping[str, Host]]:
    """As :func:`targets`, of the hosts and roles that were approved where the options name no others.

    :raises UsageError: if this is not what was approved, host by host.
    """
    loaded = load_inventory(options.inventory)
    known = [host for host in loaded.hosts.values() if host.name in approved.hosts]
    selected = loaded.select(options.hosts) if options.hosts else known
    chosen = [role for role in _chosen(options) if options.roles or role.name in approved.roles]
    found, _ = fleet.targets(selected, chosen, roles_for(options.inventory), bare=True)
    roles = {target.name: [role.name for role in target.settings] for target in found}
    if misfits := approved.misfits(roles, loaded.hosts):
        raise UsageError("\n  ".join(["this run is not what was approved", *misfits]), hint=AGAIN)
    if out := [host.name for host in known if host.name not in roles and approved.hosts[host.name].changes]:
        terminal.log(f"approved, and left out by --hosts: {', '.join(out)}")
    return found, {host.name: host for host in selected}


def _chosen(options: Options) -> tuple[Role, ...]:
    names = [name for name in options.roles.split(",") if name]
    if options.roles and not names:
        raise UsageError(f"--roles {options.roles}: it names no role", hint="--roles triton,docker")
    return choose(roles_for(options.inventory), names)


def site_roles(inventory: str) -> Path:
    """The folder with the site's own roles: ``roles`` beside the inventory. It need not be there."""
    return Path(inventory or sources.default_path()).absolute().parent / "roles"


def roles_for(inventory: str) -> tuple[Role, ...]:
    """The roles of the product and the site's own.

    :raises UsageError: if one of them cannot be loaded.
    """
    return with_site(site_roles(inventory))


def suites_for(inventory: str) -> list[Path]:
    """Where the checks of these roles are: the product's folder, and a file beside each role of the site."""
    return [data("suite"), *sorted(site_roles(inventory).glob("*/test_*.py"))]


def own_suites(tests: str) -> list[Path]:
    """The user's own tests that ``--tests`` names; none without it.

    :raises UsageError: for a path that is not there.
    """
    found = [Path(path) for path in tests.split(",") if path]
    hint = "name folders or files: --tests DIR,FILE.py"
    for path in found:
        try:
            if not path.exists():
                raise UsageError(f"--tests: there is no {path}", hint=hint)
            require_end(path)
        except OSError as error:
            raise UsageError(f"--tests: {path}: {error.strerror}", hint=hint) from error
    return [path.absolute() for path in found]


def targets(options: Options, *, bare: bool = False) -> tuple[list[Target], Mapping[str, Host]]:
    """The selected hosts with their settings, all checked; those without any of the roles are left out.

    Returns the hosts of the inventory by name, too, for messages.

    :param bare: keep hosts without any of the roles.
    :raises UsageError: for anything that is refused.
    """
    chosen, selected = _chosen(options), select(options)
    found, without = fleet.targets(selected, chosen, roles_for(options.inventory), bare=bare)
    if without:
        terminal.log(f"left out, because they have none of these roles: {', '.join(without)}")
    return found, {host.name: host for host in selected}


def removals(options: Options) -> tuple[list[Target], Mapping[str, Host]]:
    """The selected hosts without the roles that are named, as :func:`targets` returns them.

    :raises UsageError: if no role is named, or for anything that is refused.
    """
    names = [name for name in options.roles.split(",") if name]
    if wrong := [name for name in names if not re.fullmatch(r"\w[\w-]*", name, re.ASCII)]:
        raise UsageError(f"--roles: {wrong[0]!r} is not the name of a role", hint="--roles triton,docker")
    if not names:
        raise UsageError("no roles are named", hint="--roles triton,docker: those to remove")
    known = [role.name for role in roles_for(options.inventory)]
    for name in names:
        # A role that is none of ours any more may have left something.
        if name not in known and (close := difflib.get_close_matches(name, known, n=1, cutoff=0.7)):
            raise UsageError(f"there is no role {name!r}", hint=f"did you mean {close[0]}?")
    selected = select(options)
    return fleet.removals(selected, names, roles_for(options.inventory)), {h.name: h for h in selected}


def reachable(
    options: Options, *, bare: bool = False, approved: SavedPlans | None = None, remove: bool = False
) -> list[Target]:
    """:func:`targets`, ready to be connected to: with sudo's password, and with host keys that are known.

    :param bare: keep hosts without any of the roles.
    :param approved: what the run may do.
    :param remove: without the roles, as :func:`removals`.
    :raises UsageError: for anything that is refused.
    """
    if approved:
        found, named = approved_targets(options, approved)
    else:
        found, named = removals(options) if remove else targets(options, bare=bare)
    ways = ready(options, named, [target.login for target in found])
    return [replace(target, login=way) for target, way in zip(found, ways, strict=True)]


def logins(options: Options) -> Sequence[Login]:
    """How the selected hosts are reached, whatever their settings are.

    :raises UsageError: for anything that is refused.
    """
    selected = select(options)
    return ready(options, {host.name: host for host in selected}, ways_in.logins(selected))


def ready(options: Options, named: Mapping[str, Host], ways: Sequence[Login]) -> Sequence[Login]:
    """Ways that can be connected to: with sudo's password, and with host keys that are known.

    :param named: the hosts, for messages.
    :raises UsageError: for anything that is refused.
    """
    if options.ask_become_pass:
        password = asked("--ask-become-pass", "sudo password: ", "ansible_become_password: …")
        ways = [replace(way, become_password=password) for way in ways]
    if options.enroll or options.accept_new:
        enroll_hosts(options, ways)  # what it leaves out fails in the run, and no other host
    else:
        _require_known(named, ways)
    return ways


def asked(option: str, prompt: str, instead: str) -> str:
    """A password that is typed at the terminal.

    :param instead: what gives it where there is no terminal.
    :raises UsageError: where there is none.
    """
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"{option}: nobody can be asked here", hint=instead)
    with terminal.at_a_question():
        return getpass(prompt)


def _require_known(hosts: Mapping[str, Host], logins: Sequence[Login]) -> None:
    """Refuse hosts that no key could be checked against, before any connection.

    :raises InventoryError: naming the first and how many there are.
    """
    without = [login for login in logins if not knows(login)]
    for login in without:
        for key, place in revoked_keys(login).items():
            raise InventoryError(
                f"the SSH host key of {login.host} is revoked: {key.kind} {key.fingerprint} ({place})",
                where=hosts[login.host].where(),
                hint="give the host a new key, then --enroll shows it and asks; or take that line out,"
                " if it is wrong",
            )
    unknown = [login.host for login in without]
    if unknown:
        names = unknown[0] if len(unknown) == 1 else f"{unknown[0]} and {len(unknown) - 1} more"
        raise InventoryError(
            f"the SSH host key of {names} is not known",
            where=hosts[unknown[0]].where(),
            hint="--enroll shows such keys and asks; or give host_key: in the inventory",
        )


def enroll_hosts(
    options: Options,
    logins: Sequence[Login],
    ask: Callable[[str, str], bool] = terminal.confirmed,
    fetch: Callable[[Login], HostKey] = fetch_host_key,
) -> None:
    """Show the keys of unknown hosts, and record them if that is wanted and somebody agrees.

    :raises UsageError: if nobody does, or they cannot be written.
    """
    if not (options.enroll or options.accept_new):
        return
    keys = new_keys(logins, terminal.log, fetch)
    for login, key in keys:
        terminal.log(f"{login.host}: {key.kind} {key.fingerprint}")
    question = (
        "Trust this key from now on?" if len(keys) == 1 else f"Trust these {len(keys)} keys from now on?"
    )
    if keys and not options.accept_new and not ask(question, "--accept-new"):
        raise UsageError("the keys were not recorded", hint="compare them on the hosts' consoles first")
    record(keys)


@contextlib.contextmanager
def open_fleet(
    options: Options, rollout: fleet.Rollout, approved: SavedPlans | None = None, *, remove: bool = False
) -> Iterator[tuple[fleet.Fleet, Progress]]:
    """A fleet of the selected hosts with the permissions of the command line, and the view of its progress.

    :param approved: what the run may do.
    :param remove: roles are to be removed.
    :raises UsageError: for anything that is refused.
    """
    given = {REBOOT.name: options.reboot, BRANCH_CHANGE.name: options.allow_branch_change}
    granted = tuple(sorted(name for name, is_given in given.items() if is_given))
    found = [
        replace(target, granted=granted) for target in reachable(options, approved=approved, remove=remove)
    ]
    progress = Progress([target.name for target in found])
    with fleet.Fleet(found, rollout, progress.on_event, progress.refresh) as all_hosts:
        yield all_hosts, progress


def write_below(folder: Path, file: RenderedFile) -> Path:
    """Write a rendered file below a folder, so that only its owner can read it: it may hold secrets.

    Returns where it is.

    :raises UsageError: if it cannot be written.
    """
    path = folder / file.path.lstrip("/")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside(path, file.content).rename(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name another folder: --out DIR") from error
    return path


def operator() -> str:
    """Who runs the command, and where, for those who read what became of a run."""
    try:
        user = getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}@{gethostname()}"


def run_id() -> str:
    """Sortable by time, and unique among operators who start in the same second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
