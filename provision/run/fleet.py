"""Many hosts at once: in which batches, and when enough have failed. One host never stops another."""

from __future__ import annotations

import contextlib
import math
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pydantic import BaseModel

from provision.connection import Connection, ssh_config
from provision.connection.login import Login
from provision.errors import (
    HostError,
    InventoryError,
    RefusedError,
    SettingsError,
    UnreachableError,
    UsageError,
)
from provision.expectation.settings import EXPECT, Expect
from provision.inventory import Host
from provision.inventory.settings import read, refuse_misspelt
from provision.plan.backups import BACKUPS, Backups
from provision.plan.plan import Plan
from provision.plan.result import Doing, Result
from provision.plan.saved import SavedPlans
from provision.resources.leftovers import without
from provision.resources.packages.repository import SignedRepo
from provision.role import Role, Settings
from provision.run.host import HostRun, OnEvent
from provision.run.inspection import Inspection, ask_all
from provision.run.jobs import Jobs, each
from provision.run.target import Target
from provision.run.ways_in import way_in

T = TypeVar("T")

Show = Callable[[Mapping[str, Plan]], None]
"""Receives the plans of hosts that were planned at about the same time."""

FORKS = 50
"""Hosts worked on at the same time, unless the command line says otherwise."""


def unseen(_: Mapping[str, Plan]) -> None:
    """Show no plan."""


@dataclass(frozen=True)
class Rollout:
    """In which batches a fleet is changed.

    :ivar forks: hosts at the same time.
    :ivar serial: sizes of the batches, numbers or percentages; the last one repeats. Empty: one batch.
    :ivar max_failed: how many hosts may fail or be unreachable, a number or a percentage; empty: any number
        without batches, none with them.
    """

    forks: int = FORKS
    serial: tuple[str, ...] = ()
    max_failed: str = ""

    def __post_init__(self) -> None:
        """Refuse what is neither a number of hosts nor a percentage of them.

        :raises UsageError: naming the option.
        """
        if self.forks < 1:
            raise UsageError(f"--forks {self.forks}: must be at least 1", hint=f"--forks {FORKS}")
        for option, texts in (("--serial", self.serial), ("--max-failed", (self.max_failed or "0",))):
            for text in texts:
                _share(text, 1, option)
        if none := next((size for size in self.serial if not int(size.rstrip("%"))), None):
            raise UsageError(f"--serial {none}: a batch has one host at least", hint="--serial 1,10%")

    def batches(self, names: Sequence[str]) -> list[list[str]]:
        """Split ``names`` as Ansible's ``serial`` does.

        :raises UsageError: for a size that is neither a number of hosts nor a percentage of them.
        """
        sizes = [
            # as in Ansible, a percentage is one host at least
            max(_share(size, len(names), "--serial"), 1)
            for size in self.serial or ("100%",)
        ]
        rest = list(names)
        found: list[list[str]] = []
        while rest:
            size = sizes[min(len(found), len(sizes) - 1)]
            found.append(rest[:size])
            rest = rest[size:]
        return found

    def tolerated(self, total: int) -> int:
        """How many of ``total`` hosts may fail before no further host is started."""
        if self.max_failed:
            return _share(self.max_failed, total, "--max-failed")
        return 0 if self.serial else total


def _share(text: str, total: int, option: str) -> int:
    hint = f"{option} 2 or {option} 10%"
    if not re.fullmatch(r"[0-9]{1,9}%?", text):
        message = f"{option} {text or repr(text)}: neither a number of hosts nor a percentage of them"
        raise UsageError(message, hint=hint)
    number = int(text.rstrip("%"))
    if not text.endswith("%"):
        return number
    if number > 100:
        raise UsageError(f"{option} {text}: there are no more hosts than 100%", hint=hint)
    return math.floor(total * number / 100)


def targets(
    hosts: Iterable[Host], roles: Sequence[Role], known: Sequence[Role] = (), *, bare: bool = False
) -> tuple[list[Target], list[str]]:
    """Check the settings of all hosts before any connection, and say how each is reached.

    Returns the hosts that have settings for one of ``roles``, or no role and only say what was ordered; and
    the names of the others.

    :param known: all roles that there are.
    :param bare: return hosts without settings among the others.
    :raises InventoryError: with file and line, for settings or connection variables that are refused, and if
        no host has settings for any of the roles.
    """
    config = ssh_config()
    found: list[Target] = []
    without: list[Host] = []
    models: dict[str, type[BaseModel]] = {role.name: role.settings for role in roles}
    for host in hosts:
        refuse_misspelt(host, models | {BACKUPS: Backups, EXPECT: Expect})
        settings = {
            role: read(role.settings, host, role.name, role.shared)
            for role in roles
            if role.name in host.vars
        }
        _refuse_one_repository_in_two_ways(host, settings)
        expect = read(Expect, host, EXPECT) if EXPECT in host.vars else None
        given = {role.name: role for role in known if role.name in host.vars}
        if settings or bare or (expect and not given):
            login, backups = way_in(host, config), read(Backups, host, BACKUPS)
            others = _readable(host, [role for role in given.values() if role not in settings])
            target = Target(host.name, login, settings, (), backups, tuple(given), others, expect=expect)
            found.append(target)
        else:
            without.append(host)
    if not found and without:
        raise InventoryError(
            f"host {without[0].name} has settings for none of: {', '.join(role.name for role in roles)}",
            where=without[0].where(),
            hint=f"give it variables of that name, for instance in group_vars: {roles[-1].name}: …",
        )
    return found, [host.name for host in without]


def _readable(host: Host, roles: Iterable[Role]) -> dict[Role, Settings]:
    """Settings of roles that are not part of the run: a mistake in them is told by a run of theirs."""
    found = {}
    for role in roles:
        with contextlib.suppress(InventoryError):
            found[role] = read(role.settings, host, role.name, role.shared)
    return found


def _refuse_one_repository_in_two_ways(host: Host, settings: Mapping[Role, Settings]) -> None:
    """A package manager has one file for a repository, whichever roles it is for."""
    seen: dict[str, tuple[str, SignedRepo]] = {}
    for role, values in settings.items():
        repo = getattr(values, "repo", None)
        if not isinstance(repo, SignedRepo):
            continue
        name, first = seen.setdefault(repo.slug, (role.name, repo))
        if differ := [key for key, value in repo if value != getattr(first, key)]:
            raise SettingsError(
                f"{name}.repo and {role.name}.repo are one repository, and differ in {', '.join(differ)}",
                where=host.where(role.name, "repo", differ[0]) or host.where(role.name),
                hint="write both alike; YAML repeats a part by an anchor: &name, *name",
            )


def removals(hosts: Iterable[Host], roles: Sequence[str], known: Sequence[Role]) -> list[Target]:
    """The same hosts without some roles, of which only the hosts may know.

    :raises InventoryError: for connection variables that are refused.
    """
    config = ssh_config()
    chosen = [role for role in known if role.name in roles]
    strange = [name for name in dict.fromkeys(roles) if name not in {role.name for role in chosen}]
    found = []
    for host in hosts:
        given = [role.name for role in known if role.name in host.vars]
        removed = without(chosen, known, given, strange)
        found.append(Target(host.name, way_in(host, config), {}, removed=removed))
    return found


def inspect(
    ways: Iterable[Login], forks: int, connect: Callable[[Login], Connection] = Connection
) -> tuple[dict[str, Inspection], dict[str, HostError]]:
    """What every host is that answers, and the error of every one that does not."""
    return on_each(ways, ask_all, forks, connect=connect)


def on_each(
    ways: Iterable[Login],
    work: Callable[[Connection], T],
    forks: int,
    refresh: Callable[[], None] = lambda: None,
    connect: Callable[[Login], Connection] = Connection,
) -> tuple[dict[str, T], dict[str, HostError]]:
    """What ``work`` returns for every host, and the error of every one where it fails."""

    def one(login: Login) -> T | HostError:
        try:
            with connect(login) as connection:
                return work(connection)
        except HostError as error:
            error.conceal(login.secrets)
            return error
        except Exception as error:  # noqa: BLE001  # a defect of ours must not end the command for the other hosts
            return defect(login.host, error)

    answers = each({login.host: login for login in ways}, one, forks, refresh)
    found = {name: answer for name, answer in answers.items() if not isinstance(answer, HostError)}
    return found, {name: answer for name, answer in answers.items() if isinstance(answer, HostError)}


@dataclass
class Fleet:
    """All hosts of one command, their connections open from the plan to the proof.

    :ivar refresh: called at least every second while hosts are worked on.
    :ivar connect: makes the connection to a host, which opens by itself.
    :ivar begin: makes the run of a host.
    """

    targets: Sequence[Target]
    rollout: Rollout
    on_event: OnEvent
    refresh: Callable[[], None] = lambda: None
    connect: Callable[[Login], Connection] = Connection
    begin: Callable[[Target, Connection], HostRun] = HostRun
    hosts: dict[str, HostRun] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def __enter__(self) -> Fleet:
        self.hosts = {target.name: self.begin(target, self.connect(target.login)) for target in self.targets}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind not in (KeyboardInterrupt, BrokenPipeError):  # these end the process: no host is waited for
            self.close(self.hosts)

    def close(self, names: Iterable[str]) -> None:
        """Close the connections of hosts."""
        for name in names:
            self.hosts[name].connection.close()

    def survey(self, show: Show = unseen) -> dict[str, Plan]:
        """Plan every host; ``show`` receives the plans as they come.

        Hosts that cannot be planned have a result already.
        """
        with self._jobs() as jobs:
            for name, host in self.hosts.items():
                jobs.add(name, partial(self._plan, host))
            for answers in jobs.answers():
                self._take(answers, show)
        return {name: host.survey.plan for name, host in self.hosts.items() if host.survey}

    def restrict_to(self, approved: SavedPlans, key: bytes) -> dict[str, RefusedError]:
        """Fail the hosts whose plan is not the approved one, and return why; nothing is done with them."""
        refused = {
            name: error
            for name, host in self.hosts.items()
            if host.survey and (error := approved.refusal(host.survey.plan, host.target.settings, key))
        }
        for name, error in refused.items():
            self.results[name] = self.hosts[name].result("failed", error=error)
            self.on_event(name, Doing("failed"))
        return refused

    def apply(self, run: str, show: Show = unseen) -> None:
        """Apply all plans, batch by batch; start no host once too many of the batches so far have failed.

        A host without a plan is planned when its batch begins, and waits for no other host of the batch.

        :param show: receives the plans that are made here, before they are applied.
        """
        begun: list[str] = []
        for batch in self.rollout.batches(list(self.hosts)):
            begun += batch
            self._apply_batch(batch, begun, run, show)
            self.close(batch)

    def _apply_batch(self, batch: Sequence[str], begun: Sequence[str], run: str, show: Show) -> None:
        with self._jobs() as jobs:

            def start(names: Iterable[str]) -> None:
                too_many = self._failed(begun) > self.rollout.tolerated(len(self.hosts))
                for name in names:
                    host = self.hosts[name]
                    if too_many:
                        self._skip(name)
                    elif host.survey:
                        jobs.add(name, partial(self._apply, host, run))
                    else:
                        jobs.add(name, partial(self._plan, host))

            start(name for name in batch if name not in self.results)
            for answers in jobs.answers():
                start(self._take(answers, show))

    def _jobs(self) -> Jobs[Result | None]:
        return Jobs(self.rollout.forks, self.refresh)

    def _plan(self, host: HostRun) -> Result | None:
        """Plan a host; its result if that fails."""
        self.on_event(host.target.name, Doing("planning"))
        failed = _isolated(host, lambda: host.make_survey(self.on_event))
        self.on_event(host.target.name, Doing(failed.status if failed else "planned"))
        return failed

    def _apply(self, host: HostRun, run: str) -> Result:
        result = _isolated(host, lambda: host.apply(run, self.on_event))
        self.on_event(host.target.name, Doing(result.status, len(result.changes)))
        return result

    def _take(self, answers: Mapping[str, Result | None], show: Show) -> Mapping[str, Plan]:
        """Keep the results; show and return the plans of the hosts that have none."""
        self.results |= {name: result for name, result in answers.items() if result}
        plans = {
            name: host.survey.plan
            for name, host in self.hosts.items()
            if name in answers and name not in self.results and host.survey
        }
        if plans:
            show(plans)
        return plans

    def _failed(self, names: Iterable[str]) -> int:
        results = [self.results[name] for name in names if name in self.results]
        return sum(result.status in ("failed", "unreachable") for result in results)

    def _skip(self, name: str) -> None:
        host = self.hosts[name]
        converged = host.survey is not None and not host.survey.plan.changes
        self.results[name] = host.result("ok" if converged else "skipped")
        self.on_event(name, Doing(self.results[name].status))

    def planned(self) -> None:
        """Results of a run that only plans: a host that would change has status changed."""
        for name, host in self.hosts.items():
            if host.survey and name not in self.results:
                pending = host.survey.plan.changes
                self.results[name] = host.result("changed" if pending else "ok", changes=pending)

    def in_order(self) -> list[Result]:
        """The results in the order of the inventory."""
        return [self.results[name] for name in self.hosts if name in self.results]


def _isolated(host: HostRun, work: Callable[[], T]) -> T | Result:
    """Do ``work`` so that whatever goes wrong is this host's result and nobody else's."""
    try:
        return work()
    except UnreachableError as error:
        return host.result("unreachable", error=error)
    except HostError as error:
        return host.result("failed", error=error)
    except UsageError as error:  # a template, which may be wrong for some hosts only
        return host.result("failed", error=HostError(host.target.name, error.message, hint=error.hint))
    except Exception as error:  # noqa: BLE001  # a defect of ours must not end the run of the other hosts
        return host.result("failed", error=defect(host.target.name, error))


def defect(host: str, error: Exception) -> HostError:
    """An error of ours as that of the host where it showed."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = f"unexpected {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    return HostError(host, message, hint="this is a defect: report it")


def exit_code(results: Sequence[Result], *, check: bool) -> int:
    """0 all well, 1 a host failed, was not reached or not started, 3 with ``check``: changes are pending."""
    if any(result.status in ("failed", "unreachable", "skipped") for result in results):
        return 1
    return 3 if check and any(result.changes for result in results) else 0
