"""One host: facts, plan, apply, and planned again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from provision import facts as facts_of
from provision import plan as planning
from provision.apply import BusyError, apply, attach
from provision.command import Probe
from provision.connection import Connection
from provision.errors import ChangeError, HostError, ProbeError, Refusal, RefusedError, UnreachableError
from provision.facts import Facts
from provision.gather import gather
from provision.hints import hint_for
from provision.login import Login
from provision.plan import Plan, Wanted
from provision.resources.base import Resource
from provision.result import Result, Status
from provision.roles.base import Role, Settings
from provision.script import ACTIVE, Event

ACTIVE_RUN = Probe("active-run", ACTIVE)


@dataclass(frozen=True)
class Target:
    """A host with its way in and the settings of the roles that it has, checked before any connection."""

    name: str
    login: Login
    settings: Mapping[Role, Settings]


@dataclass(frozen=True)
class Survey:
    """What a host is, what is wanted of it, and what that takes."""

    facts: Facts
    wanted: tuple[Wanted, ...]
    plan: Plan


Tell = Callable[[str, Event | str], None]
"""Receives the name of a host and an event of its run, or a line about it."""


def ask_facts(connection: Connection) -> tuple[Facts, str]:
    """Facts of the host, and the id of the run that is under way there (or "").

    :raises ProbeError: if it is not a system that we can read.
    """
    answers = gather(connection, (*facts_of.PROBES, ACTIVE_RUN))
    try:
        return facts_of.parse(answers), answers[ACTIVE_RUN.name].out.strip()
    except ValueError as error:
        raise ProbeError(connection.login.host, str(error)) from error


def survey(connection: Connection, target: Target, tell: Tell) -> Survey:
    """Look at a host and plan it: two execs, and nothing is changed.

    A run that is under way there is followed to its end first.

    :raises HostError: if the host cannot be reached, read or planned.
    """
    facts, run = ask_facts(connection)
    if run:
        tell(target.name, f"run {run} is under way here; attached to it")
        attach(connection, run, lambda event: tell(target.name, event))
    wanted = wanted_of(target, facts)
    return Survey(facts, wanted, replan(connection, wanted))


def replan(connection: Connection, wanted: Sequence[Wanted]) -> Plan:
    """Ask for the state of everything wanted, and plan: one exec."""
    answers = gather(connection, planning.probes(wanted))
    return planning.plan(
        connection.login.host, wanted, planning.states(connection.login.host, wanted, answers)
    )


def wanted_of(target: Target, facts: Facts) -> tuple[Wanted, ...]:
    """All resources of all roles of a host. Two roles may want the very same thing, never different ones.

    :raises RefusedError: if a role refuses the host, or two roles disagree.
    """
    found: dict[str, tuple[str, Resource]] = {}
    for role, settings in target.settings.items():
        try:
            resources = role.resources(settings, facts)
        except Refusal as refusal:
            raise RefusedError(target.name, refusal.message, hint=refusal.hint) from refusal
        for resource in resources:
            other, same = found.setdefault(resource.id, (role.name, resource))
            if same != resource:
                raise RefusedError(
                    target.name, f"roles {other} and {role.name} want different things of {resource.id}"
                )
    return tuple(Wanted(role, resource) for role, resource in found.values())


@dataclass
class Converging:
    """A host on its way: its connection stays open from the plan to the proof."""

    target: Target
    connection: Connection
    began: float = field(default_factory=time.monotonic)
    survey: Survey | None = None

    def result(self, status: Status, *, error: HostError | None = None, changed: int = 0) -> Result:
        """Sum up; ``changed`` is how many changes of the plan were made."""
        return Result(
            self.target.name,
            status,
            resources=len(self.survey.wanted) if self.survey else 0,
            right=len(self.survey.wanted) - len(self.survey.plan.changes) if self.survey else 0,
            changes=self.survey.plan.changes[:changed] if self.survey else (),
            error=error,
            seconds=time.monotonic() - self.began,
            connects=self.connection.connects,
            execs=self.connection.execs,
        )

    def carry_out(self, run: str, tell: Tell) -> Result:
        """Apply the plan of the survey, then plan again: changed only if nothing is left to do."""
        assert self.survey is not None
        plan = self.survey.plan
        if not plan.changes:
            return self.result("ok")
        done: list[Event] = []
        try:
            events = self._apply_or_attach(plan, run, tell)
            done = [event for event in events if event.kind in ("ok", "skip")]
            _raise_failure(plan, run, events)
            self._prove()
        except UnreachableError as error:
            return self.result("unreachable", error=error, changed=len(done))
        except HostError as error:
            return self.result("failed", error=error, changed=len(done))
        return self.result("changed", changed=len(plan.changes))

    def _apply_or_attach(self, plan: Plan, run: str, tell: Tell) -> list[Event]:
        """Apply; if somebody else was quicker, wait for them and go on only with what was approved."""

        def told(event: Event) -> None:
            tell(self.target.name, event)

        try:
            return apply(self.connection, plan, run, told)
        except BusyError as busy:
            if not busy.run:
                raise
            tell(self.target.name, f"{busy.message}; attached to it")
            attach(self.connection, busy.run, told)
        assert self.survey is not None
        fresh = replan(self.connection, self.survey.wanted)
        if beyond := fresh.beyond(plan):
            raise RefusedError(
                self.target.name,
                f"after another run the plan has more than was approved: {beyond[0].summary}",
                hint="look at the new plan: inv plan",
            )
        self.survey = Survey(self.survey.facts, self.survey.wanted, fresh)
        return apply(self.connection, fresh, run, told) if fresh.changes else []

    def _prove(self) -> None:
        assert self.survey is not None
        left = replan(self.connection, self.survey.wanted).changes
        if left:
            raise ChangeError(
                self.target.name,
                f"not converged: {left[0].summary} is still to be done ({left[0].reason})",
                resource=left[0].resource,
                hint="something on the host undoes the change, or another tool manages the same thing",
            )


def _raise_failure(plan: Plan, run: str, events: Sequence[Event]) -> None:
    """Turn the event of a failed step into an error with everything that is known about it."""
    failed = next((event for event in events if event.kind == "fail"), None)
    if failed is None:
        if events and events[-1].status == "interrupted":
            raise HostError(plan.host, f"run {run} was interrupted on the host", hint="run again: it goes on")
        return
    change = plan.changes[failed.index]
    tail = failed.output.strip()
    what = {
        "guard": "it is no longer as the plan saw it; somebody changed it in between",
        "unproven": "the command succeeded, but its outcome is not there",
    }.get(failed.status, f"exit {failed.status}")
    raise ChangeError(
        plan.host,
        f"{change.resource}: {change.summary}: {what}",
        resource=change.resource,
        exit_code=int(failed.status) if failed.status.isdigit() else None,
        stderr=tail,
        hint=hint_for(tail)
        or (
            "plan again"
            if failed.status == "guard"
            else f"the whole output: /run/provision/{run}/{failed.index}.log on the host"
        ),
    )
