"""Declared resources and their states in, a plan out. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provision.errors import ProbeError, Refusal, RefusedError
from provision.plan.declared import Declared
from provision.probe import Output, Probe
from provision.resource import CHECK, AnyResource, Change, Handler, Planned
from provision.secrecy import without_secrets
from provision.shell import digest

STEPS = "shell/steps.sh"
"""The functions that run steps."""


@dataclass(frozen=True)
class Plan:
    """Everything that will be done to one host, in order.

    :ivar notes: what the operator should know and no change will mend.
    :ivar granted: names of the permissions that were given for this plan.
    """

    host: str
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()

    def beyond(self, approved: Plan, *, rebooted: bool = False) -> tuple[Change, ...]:
        """The changes, checks aside, that ``approved`` does not have for the same resource and action.

        :param rebooted: the host was rebooted in between, as approved.
        """
        known = {(change.resource, change.action) for change in approved.changes}
        return tuple(
            change
            for change in self.changes
            if (change.resource, change.action) not in known
            and change.action != CHECK
            and not (rebooted and change.after_reboot)
        )

    def lacks(self, change: Change) -> bool:
        """Whether a change needs a permission that nobody gave."""
        return change.needs is not None and change.needs.name not in self.granted


def probes(declared: Sequence[Declared]) -> list[Probe]:
    """One probe for each kind of resource that is declared, or for several that one kind asks for."""
    found = [kind.probe(members) for kind, members in _by_kind(declared).items()]
    return sorted(found, key=lambda probe: probe.last)


def states(host: str, declared: Sequence[Declared], answers: Mapping[str, Output]) -> dict[str, Any]:
    """Read the answers to :func:`probes` into one state for each resource id.

    :raises ProbeError: if an answer cannot be understood.
    :raises RefusedError: if an answer says that nothing can be done.
    """
    found: dict[str, Any] = {}
    for kind, members in _by_kind(declared).items():
        answer = answers[kind.probe(members).name]
        try:
            found.update(kind.states(members, answer))
        except Refusal as refusal:
            raise RefusedError(host, without_secrets(refusal.message), hint=refusal.hint) from refusal
        except (ValueError, KeyError) as error:
            tail = answer.err.strip().splitlines()[-3:]
            said = f": {'; '.join(tail)}" if tail else ""
            raise ProbeError(host, f"cannot read the state of {kind.kind}: {error}{said}") from error
    return found


def plan(
    host: str, declared: Sequence[Declared], states_by_id: Mapping[str, Any], granted: tuple[str, ...] = ()
) -> Plan:
    """Compute what makes every declared resource right, in the order written.

    :raises RefusedError: if a resource refuses the state that it finds.
    """
    changes: list[Change] = []
    notes: list[str] = []
    for item in declared:
        state, planned = states_by_id[item.resource.id], Planned(tuple(changes))
        try:
            change = item.resource.change(state, planned)
        except Refusal as refusal:
            raise RefusedError(host, without_secrets(refusal.message), hint=refusal.hint) from refusal
        told = item.resource.notes(state, planned)
        notes += (without_secrets(note).replace("{host}", host) for note in told)
        if change is not None:
            shell = item.resource.shell
            functions = digest(STEPS, *shell)
            change = replace(change, role=item.role, leaves=item.leaves, shell=shell, functions=functions)
            changes.append(_for_people(change))
    handlers = [item.resource for item in declared if isinstance(item.resource, Handler)]
    return Plan(host, _with_debts(tuple(changes), handlers, states_by_id), tuple(notes), granted)


def previews(planned: Plan) -> list[Probe]:
    """The further questions that planned changes have."""
    return [
        replace(change.preview, name=_preview_name(change))
        for change in planned.changes
        if change.preview is not None
    ]


def refined(planned: Plan, declared: Sequence[Declared], answers: Mapping[str, Output]) -> Plan:
    """The plan with the answers to :func:`previews` in it.

    :raises RefusedError: if an answer shows that a change must not be made.
    """
    resources: dict[str, AnyResource] = {item.resource.id: item.resource for item in declared}
    changes = []
    for change in planned.changes:
        answer = answers.get(_preview_name(change))
        if answer is None:
            changes.append(change)
            continue
        try:
            closer = resources[change.resource].refine(change, answer)
        except Refusal as refusal:
            raise RefusedError(planned.host, without_secrets(refusal.message), hint=refusal.hint) from refusal
        names = ("role", "leaves", "shell", "functions", "owes", "settles")
        kept = {name: getattr(change, name) for name in names}
        changes.append(_for_people(replace(closer, **kept)))
    return replace(planned, changes=tuple(changes))


def _for_people(change: Change) -> Change:
    return replace(
        change,
        summary=without_secrets(change.summary),
        reason=without_secrets(change.reason),
        diff=without_secrets(change.diff),
        simulation=without_secrets(change.simulation),
    )


def _preview_name(change: Change) -> str:
    return f"preview of {change.resource}"


def _with_debts(
    changes: tuple[Change, ...], handlers: Sequence[Handler], states_by_id: Mapping[str, Any]
) -> tuple[Change, ...]:
    """Note on every change which handlers it owes, and which it settles by doing their work."""
    owes: dict[int, list[str]] = {}
    settles: dict[int, list[str]] = {}
    planned = Planned(changes)
    for handler in handlers:
        causes = handler.causes(planned)
        for index in causes:
            owes.setdefault(index, []).append(handler.note)
        if causes or states_by_id[handler.id]:
            for index in handler.covers(planned):
                if index > max(causes, default=-1):
                    settles.setdefault(index, []).append(handler.note)
    return tuple(
        replace(
            change,
            owes=(*change.owes, *owes.get(index, ())),
            settles=(*change.settles, *settles.get(index, ())),
        )
        for index, change in enumerate(changes)
    )


def _by_kind(declared: Sequence[Declared]) -> dict[type[AnyResource], list[Any]]:
    kinds: dict[type[AnyResource], list[Any]] = {}
    for item in declared:
        kinds.setdefault(item.resource.asked_by(), []).append(item.resource)
    return kinds
