"""One host: facts, plan, apply, and planned again."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from provision.causes.roles import fitting
from provision.connection import Connection
from provision.errors import ChangeError, HostError, ProbeError, UnreachableError
from provision.facts import BOOT_ID, PROBES, Facts, parse
from provision.plan import plan as planning
from provision.plan.declared import Declared
from provision.plan.plan import Plan
from provision.plan.result import Doing, Result, Status
from provision.plan.script import ACTIVE, SPOOL, Event, run_id_of
from provision.plan.stages import Stage, next_stage
from provision.probe import Output, Probe
from provision.resource import Change
from provision.resources.leftovers import Leftovers
from provision.run.apply import BusyError, LostRunError, OvertakenError, apply, attach
from provision.run.asker import require_root
from provision.run.failures import beyond_approved, raise_failure
from provision.run.gather import Answers, gather, gather_both
from provision.run.target import Target

PREVIEW = 300.0
"""Seconds for the host's own tools to say what they would do."""

POLL = 2.0
"""Seconds between two attempts to reach a host that reboots."""

REBOOTS = 3
"""Reboots after which a host that still wants another one is given up."""

OTHERS = 10
"""Runs of others that are waited for before a host is given up."""


@dataclass(frozen=True)
class Survey:
    """What a host is, what is declared for it, and what that takes."""

    facts: Facts
    declared: tuple[Declared, ...]
    plan: Plan


OnEvent = Callable[[str, Event | Doing | str], None]
"""Receives the name of a host and an event of its run, what is done with it next, or a line about it."""


def facts_of(host: str, answers: Mapping[str, Output]) -> Facts:
    """Facts of a host, from its answers.

    :raises ProbeError: if it is not a system that we can read.
    """
    try:
        return parse(answers)
    except ValueError as error:
        raise ProbeError(host, str(error)) from error


def run_of(host: str, answers: Mapping[str, Output]) -> str:
    """The id of the run that is under way on a host, or "".

    :raises ProbeError: if it is no id, which no script may hold.
    """
    named = answers[ACTIVE.name].out.strip()
    try:
        return named and run_id_of(named)
    except ValueError as error:
        raise ProbeError(host, str(error), hint=f"see who wrote to {SPOOL}/lock on the host") from error


def ask_facts(connection: Connection) -> tuple[Facts, str]:
    """Facts of the host, and the id of the run that is under way there (or "").

    :raises HostError: if it cannot be reached, or is not a system that we can read.
    """
    return _told(connection.login.host, gather(connection, (*PROBES, ACTIVE)))


def _told(host: str, answers: Answers) -> tuple[Facts, str]:
    return facts_of(host, answers), run_of(host, answers)


def survey(
    connection: Connection,
    target: Target,
    on_event: OnEvent,
    sleep: Callable[[float], None] = time.sleep,
) -> Survey:
    """Ask a host for its facts and its state, and plan it: one exec, and nothing is changed.

    A run that is under way there is followed to its end first; then its state is asked for again.

    :raises HostError: if the host cannot be reached, read or planned.
    """

    notes: list[str] = []

    def then(answers: Answers) -> tuple[tuple[Facts, str, tuple[Declared, ...]], Sequence[Probe]]:
        facts, run = _told(target.name, answers)
        require_root(target.login, facts.user)
        notes.extend(target.differences(facts, answers))
        declared = target.declared(facts)
        return (facts, run, declared), () if run else planning.probes(declared)

    (facts, run, declared), answers = gather_both(connection, (*target.questions, ACTIVE), then)
    if run:
        on_event(target.name, f"run {run} is under way here; attached to it")
        attach(connection, run, lambda event: on_event(target.name, event), sleep)
        plan = replan(connection, declared, target.granted)
    else:
        plan = _plan(connection, declared, answers, target.granted)
    return Survey(facts, declared, replace(plan, notes=(*notes, *plan.notes)))


def replan(connection: Connection, declared: Sequence[Declared], granted: tuple[str, ...]) -> Plan:
    """Ask for the state of all that is declared, and plan: one exec, and one more for previews.

    Where the connection is lost it is asked once more, over another one.
    """
    probes = planning.probes(declared)
    try:
        answers = gather(connection, probes)
    except UnreachableError:  # a session may end while a run is followed; questions change nothing
        connection.close()
        answers = gather(connection, probes)
    return _plan(connection, declared, answers, granted)


def _plan(
    connection: Connection, declared: Sequence[Declared], answers: Answers, granted: tuple[str, ...]
) -> Plan:
    host = connection.login.host
    plan = planning.plan(host, declared, planning.states(host, declared, answers), granted)
    previews = planning.previews(plan)
    if not previews:
        return plan
    return planning.refined(plan, declared, gather(connection, previews, timeout=PREVIEW))


@dataclass
class HostRun:
    """The run of one host: its connection stays open from the plan to the proof.

    :ivar clock: seconds; only differences count.
    :ivar reboots: how often it was rebooted.
    :ivar others: how many runs of others came first.
    :ivar right: how many resources were right before anything was changed.
    :ivar begun: resources whose steps in the current plan have begun.
    :ivar worked: seconds that were spent on it; waiting for an answer or for other hosts does not count.
    :ivar began: when the work that is under way began.
    """

    target: Target
    connection: Connection
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    survey: Survey | None = None
    reboots: int = 0
    others: int = 0
    right: int = 0
    begun: set[str] = field(default_factory=set)
    worked: float = 0.0
    began: float | None = None

    def make_survey(self, on_event: OnEvent) -> None:
        """Survey the host; what is right before the run is counted here.

        :raises HostError: as :func:`survey`.
        """
        began = self.clock()
        try:
            self.survey = survey(self.connection, self.target, on_event, self.sleep)
        finally:
            self.worked += self.clock() - began
        changed = {change.resource for change in self.survey.plan.changes}
        ids = [item.resource.id for item in self.survey.declared if not isinstance(item.resource, Leftovers)]
        self.right = sum(name not in changed for name in ids)

    def result(
        self,
        status: Status,
        *,
        error: HostError | None = None,
        changes: Sequence[Change] = (),
        not_run: int = 0,
    ) -> Result:
        """Sum up; ``changes`` are those that were made, ``not_run`` steps were left."""
        if error:
            error.advise(fitting(error.hint, self.target.roles))
            error.conceal(self.target.login.secrets)
        return Result(
            self.target.name,
            status,
            right=self.right,
            changes=tuple(changes),
            notes=self.survey.plan.notes if self.survey else (),
            reboots=self.reboots,
            error=error,
            not_run=not_run,
            seconds=self.worked + (self.clock() - self.began if self.began is not None else 0.0),
            connects=self.connection.connects,
            execs=self.connection.execs,
        )

    def apply(self, run: str, on_event: OnEvent) -> Result:
        """Apply the plan of the survey, then plan again: changed only if nothing is left to do."""
        assert self.survey is not None
        self.began = self.clock()
        if not self.survey.plan.changes:
            return self.result("ok")
        done: list[Change] = []
        try:
            self._apply(run, on_event, done)
        except UnreachableError as error:
            return self.result("unreachable", error=error, changes=done)
        except LostRunError as error:  # how far the run came is not known
            return self.result("failed", error=error, changes=done)
        except HostError as error:
            left = sum(change.resource not in self.begun for change in self.survey.plan.changes)
            return self.result("failed", error=error, changes=done, not_run=left)
        return self.result("changed" if done else "ok", changes=done)

    def _apply(self, run: str, on_event: OnEvent, done: list[Change]) -> None:
        """Stage by stage, a reboot between two of them; ``done`` collects the changes that were made."""
        assert self.survey is not None
        approved = self.survey.plan
        while self.survey.plan.changes:
            stage = next_stage(self.survey.plan)
            try:
                again = self.reboots + self.others
                self._apply_stage(stage, f"{run}-{again}" if again else run, on_event, done)
            except BusyError as busy:
                self._plan_after_another(busy, approved, on_event)
                continue
            if refusal := stage.refusal():
                raise refusal
            if stage.reboot is None:
                self.require_converged(approved)
                return
            self._plan_after_reboot(stage.reboot, approved, on_event)

    def require_converged(self, approved: Plan) -> None:
        """Plan once more: nothing may be left to do.

        :raises ChangeError: naming what is.
        """
        assert self.survey is not None
        if pending := replan(self.connection, self.survey.declared, approved.granted).changes:
            raise ChangeError(
                self.target.name,
                f"not converged: {pending[0].summary} is still to be done ({pending[0].reason})",
                resource=pending[0].resource,
                hint="find and end what undoes the change, such as another tool for the same thing",
            )

    def _apply_stage(self, stage: Stage, run: str, on_event: OnEvent, done: list[Change]) -> None:
        if not stage.plan.changes:
            return
        assert self.survey is not None
        on_event(self.target.name, Doing("applying", len(stage.plan.changes)))
        left = dict(enumerate(stage.plan.changes))

        def watch(event: Event) -> None:
            if event.index >= 0:
                self.begun.add(stage.plan.changes[event.index].resource)
            change = left.pop(event.index, None) if event.kind in ("ok", "skip") else None
            if change is not None and event.kind == "ok":
                done.append(change)
            on_event(self.target.name, event)

        try:
            clock, kept = self.clock, self.target.backups
            events = apply(self.connection, stage.plan, run, watch, self.sleep, clock=clock, backups=kept)
        except (LostRunError, UnreachableError):
            # The connection may be gone before the last event was read.
            if stage.reboot is None or self.booted() == self.survey.facts.boot_id:
                raise
            done += left.values()
            return
        raise_failure(stage.plan, run, events)

    def booted(self) -> str:
        """The id of the host's boot, over a fresh connection.

        :raises UnreachableError: if it does not answer.
        :raises HostError: if the answer makes no sense.
        """
        self.connection.close()
        said = self.connection.run(
            "cat /proc/sys/kernel/random/boot_id", timeout=20, what="its boot's id"
        ).out
        if not re.fullmatch(BOOT_ID, said.strip()):
            raise ProbeError(self.target.name, f"not the id of a boot: {said[:100]!r}")
        return said.strip()

    def _plan_after_reboot(self, reboot: Change, approved: Plan, on_event: OnEvent) -> None:
        """Wait for the host, and plan it anew: facts may have changed, such as the kernel.

        :raises RefusedError: if the new plan has more than was approved.
        """
        assert self.survey is not None
        on_event(self.target.name, Doing("rebooting"))
        on_event(self.target.name, f"reboot: waiting up to {reboot.reboot} s for it to come back")
        took = self._await_boot(self.survey.facts.boot_id, reboot.reboot)
        self.reboots += 1
        facts, _ = ask_facts(self.connection)
        declared = self.target.declared(facts)
        plan = replan(self.connection, declared, approved.granted)
        self.survey = Survey(facts, declared, plan)
        self.begun.clear()
        count = len(plan.changes)
        left = f"{count} change{'' if count == 1 else 's'} left" if count else "nothing is left to do"
        on_event(self.target.name, f"back after {took:.0f} s; {left}")
        if (again := next_stage(plan).reboot) and (
            (again.resource, again.reason) == (reboot.resource, reboot.reason) or self.reboots >= REBOOTS
        ):
            raise ChangeError(
                self.target.name,
                f"it was rebooted and still needs a reboot: {again.reason}",
                resource=again.resource,
                hint="look at its console: it may boot another kernel than the newest, or an old initramfs",
            )
        if beyond := plan.beyond(approved, rebooted=True):
            raise beyond_approved(self.target.name, "after the reboot", beyond[0])

    def _await_boot(self, old: str, limit: float) -> float:
        """Wait until the host answers with another boot id; the seconds that it took.

        :raises UnreachableError: if it does not in time.
        """
        began = self.clock()
        while True:
            try:
                if self.booted() != old:
                    break
                said = "it answers, and was not rebooted"
            except HostError as error:
                said = error.message
            if self.clock() - began > limit:
                raise UnreachableError(
                    self.target.name,
                    f"it did not come back within {limit:.0f} s of its reboot: {said}",
                    hint="look at its console or BMC; when it is up, run again: the run continues",
                )
            self.sleep(POLL)
        # Units that start at boot are on their way; planning before they are up would start them once more.
        self.connection.run("timeout -k 5 60 systemctl is-system-running --wait || :", timeout=90)
        return self.clock() - began

    def _plan_after_another(self, busy: BusyError, approved: Plan, on_event: OnEvent) -> None:
        """Somebody else was quicker: wait for them, and go on only with what was approved.

        :raises BusyError: if it is not known what to wait for, or there is no end to it.
        :raises RefusedError: if the new plan has more than was approved.
        """
        self.others += 1
        if self.others > OTHERS or not (busy.run or isinstance(busy, OvertakenError)):
            raise busy
        assert self.survey is not None
        now = "attached to it" if busy.run else "the host is planned anew"
        on_event(self.target.name, f"{busy.message}; {now}")
        if busy.run:
            told = functools.partial(on_event, self.target.name)
            attach(self.connection, busy.run, told, self.sleep, clock=self.clock)
        plan = replan(self.connection, self.survey.declared, approved.granted)
        if beyond := plan.beyond(approved):
            raise beyond_approved(self.target.name, "after another run", beyond[0])
        self.survey = replace(self.survey, plan=plan)
