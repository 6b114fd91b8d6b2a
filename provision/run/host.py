"""One host: facts, plan, apply, and planned again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from provision import facts as facts_of
from provision.causes.known_messages import hint_for
from provision.connection import Connection
from provision.connection.login import Login
from provision.errors import ChangeError, HostError, ProbeError, Refusal, RefusedError, UnreachableError
from provision.facts import Facts
from provision.plan import plan as planning
from provision.plan.plan import Leg, Plan, Wanted
from provision.plan.result import Result, Status
from provision.plan.script import ACTIVE, Event
from provision.probe import Probe
from provision.resource import Change, Resource
from provision.role import Role, Settings
from provision.run.apply import BusyError, LostRunError, apply, attach
from provision.run.gather import gather

ACTIVE_RUN = Probe("active-run", ACTIVE)

LOOK = 300.0
"""Seconds for the host's own tools to say what they would do."""

POLL = 2.0
"""Seconds between two looks whether a host is back."""

REBOOTS = 3
"""Reboots after which a host that still wants another one is given up."""


@dataclass(frozen=True)
class Target:
    """A host with its way in and the settings of the roles that it has, checked before any connection.

    :ivar granted: permissions that the command line gives, by their names in
        :data:`provision.resource.PERMISSIONS`.
    """

    name: str
    login: Login
    settings: Mapping[Role, Settings]
    granted: tuple[str, ...] = ()


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
    return Survey(facts, wanted, replan(connection, wanted, target.granted))


def replan(connection: Connection, wanted: Sequence[Wanted], granted: tuple[str, ...]) -> Plan:
    """Ask for the state of all that is wanted, and plan: one exec, and one for what needs a closer look."""
    host = connection.login.host
    answers = gather(connection, planning.probes(wanted))
    plan = planning.plan(host, wanted, planning.states(host, wanted, answers), granted)
    questions = planning.looks(plan)
    if not questions:
        return plan
    return planning.looked(plan, wanted, gather(connection, questions, timeout=LOOK))


def wanted_of(target: Target, facts: Facts) -> tuple[Wanted, ...]:
    """All resources of all roles of a host, in the order written, except for what has to come first.

    Two roles may want the very same thing, never different ones.

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
    wanted = [Wanted(role, resource) for role, resource in found.values()]
    return tuple(sorted(wanted, key=lambda item: not item.resource.first))


@dataclass
class Converging:
    """A host on its way: its connection stays open from the plan to the proof.

    :ivar reboots: how often it was rebooted.
    :ivar right: how many resources were right before anything was changed.
    """

    target: Target
    connection: Connection
    began: float = field(default_factory=time.monotonic)
    survey: Survey | None = None
    reboots: int = 0
    right: int = 0

    def look(self, tell: Tell) -> None:
        """Survey the host; what is right already is counted here.

        :raises HostError: as :func:`survey`.
        """
        self.survey = survey(self.connection, self.target, tell)
        self.right = len(self.survey.wanted) - len(self.survey.plan.changes)

    def result(
        self, status: Status, *, error: HostError | None = None, changes: Sequence[Change] = ()
    ) -> Result:
        """Sum up; ``changes`` are those that were made."""
        return Result(
            self.target.name,
            status,
            resources=len(self.survey.wanted) if self.survey else 0,
            right=self.right,
            changes=tuple(changes),
            notes=self.survey.plan.notes if self.survey else (),
            reboots=self.reboots,
            error=error,
            seconds=time.monotonic() - self.began,
            connects=self.connection.connects,
            execs=self.connection.execs,
        )

    def carry_out(self, run: str, tell: Tell) -> Result:
        """Apply the plan of the survey, then plan again: changed only if nothing is left to do."""
        assert self.survey is not None
        if not self.survey.plan.changes:
            return self.result("ok")
        done: list[Change] = []
        try:
            self._carry_out(run, tell, done)
        except UnreachableError as error:
            return self.result("unreachable", error=error, changes=done)
        except HostError as error:
            return self.result("failed", error=error, changes=done)
        return self.result("changed", changes=done)

    def _carry_out(self, run: str, tell: Tell, done: list[Change]) -> None:
        """Leg by leg, a reboot between two of them; ``done`` collects the changes that were made."""
        assert self.survey is not None
        approved = self.survey.plan
        while self.survey.plan.changes:
            leg = self.survey.plan.next_leg()
            try:
                self._apply_leg(leg, f"{run}-{self.reboots}" if self.reboots else run, tell, done)
            except BusyError as busy:
                self._plan_after_another(busy, approved, tell)
                continue
            if refusal := leg.refusal():
                raise refusal
            if leg.reboot is None:
                break
            self._plan_after_reboot(leg.reboot, approved, tell)
        else:
            return
        if left := replan(self.connection, self.survey.wanted, approved.granted).changes:
            raise ChangeError(
                self.target.name,
                f"not converged: {left[0].summary} is still to be done ({left[0].reason})",
                resource=left[0].resource,
                hint="something on the host undoes the change, or another tool manages the same thing",
            )

    def _apply_leg(self, leg: Leg, run: str, tell: Tell, done: list[Change]) -> None:
        if not leg.plan.changes:
            return
        assert self.survey is not None
        try:
            events = apply(self.connection, leg.plan, run, lambda event: tell(self.target.name, event))
        except (LostRunError, UnreachableError):
            # The connection may be gone before the last event was read.
            if leg.reboot is None or self.booted() == self.survey.facts.boot_id:
                raise
            done += leg.plan.changes
            return
        done += [leg.plan.changes[event.index] for event in events if event.kind in ("ok", "skip")]
        _raise_failure(leg.plan, run, events)

    def booted(self) -> str:
        """The id of the host's boot, over a fresh connection.

        :raises UnreachableError: if it does not answer.
        """
        self.connection.close()
        return self.connection.run("cat /proc/sys/kernel/random/boot_id", timeout=20).out.strip()

    def _plan_after_reboot(self, reboot: Change, approved: Plan, tell: Tell) -> None:
        """Wait for the host, and plan it anew: facts may have changed, such as the kernel.

        :raises RefusedError: if the new plan has more than was approved.
        """
        assert self.survey is not None
        tell(self.target.name, f"reboot: waiting up to {reboot.reboot} s for it to come back")
        took = self._await_boot(self.survey.facts.boot_id, reboot.reboot)
        self.reboots += 1
        facts, _ = ask_facts(self.connection)
        wanted = wanted_of(self.target, facts)
        plan = replan(self.connection, wanted, approved.granted)
        self.survey = Survey(facts, wanted, plan)
        tell(self.target.name, f"back after {took:.0f} s; {len(plan.changes)} changes are left")
        if (again := plan.next_leg().reboot) and (
            (again.resource, again.reason) == (reboot.resource, reboot.reason) or self.reboots >= REBOOTS
        ):
            raise ChangeError(
                self.target.name,
                f"rebooted, and it needs a reboot all the same: {again.reason}",
                resource=again.resource,
                hint="is another kernel booted than the newest, or is its initramfs old? look at its console",
            )
        if beyond := plan.beyond(approved, rebooted=True):
            raise _beyond(self.target.name, "after the reboot", beyond[0])

    def _await_boot(self, old: str, limit: float) -> float:
        """Wait until the host answers with another boot id; the seconds that it took.

        :raises UnreachableError: if it does not in time.
        """
        began = time.monotonic()
        while True:
            try:
                if self.booted() != old:
                    break
                said = "it answers, and has not gone down"
            except HostError as error:
                said = error.message
            if time.monotonic() - began > limit:
                raise UnreachableError(
                    self.target.name,
                    f"it did not come back within {limit:.0f} s after its reboot: {said}",
                    hint="look at its console or BMC; when it is up, run again: it goes on from there",
                )
            time.sleep(POLL)
        # Units that start at boot are on their way; planning before they are up would start them once more.
        self.connection.run("timeout 60 systemctl is-system-running --wait || :", timeout=90)
        return time.monotonic() - began

    def _plan_after_another(self, busy: BusyError, approved: Plan, tell: Tell) -> None:
        """Somebody else was quicker: wait for them, and go on only with what was approved.

        :raises BusyError: if it is not known what to wait for.
        :raises RefusedError: if the new plan has more than was approved.
        """
        if not busy.run:
            raise busy
        assert self.survey is not None
        tell(self.target.name, f"{busy.message}; attached to it")
        attach(self.connection, busy.run, lambda event: tell(self.target.name, event))
        plan = replan(self.connection, self.survey.wanted, approved.granted)
        if beyond := plan.beyond(approved):
            raise _beyond(self.target.name, "after another run", beyond[0])
        self.survey = replace(self.survey, plan=plan)


def _beyond(host: str, when: str, change: Change) -> RefusedError:
    return RefusedError(
        host,
        f"{when} the plan has more than was approved: {change.summary} ({change.reason})",
        hint="look at the new plan: inv plan",
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
