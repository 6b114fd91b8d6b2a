"""Resources and their states in, a plan out; plans compared, saved and loaded. No I/O here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from provision.command import Output, Probe
from provision.errors import ChangeError, ProbeError, Refusal, RefusedError, UsageError
from provision.resources.base import PERMISSIONS, Change, Planned, Resource
from provision.resources.handler import Handler

SCHEMA = 2
LISTS = ("owes", "settles", "signals", "causes", "impact")
"""Fields of a change that hold several texts."""
AFTER_A_REBOOT = ("load", "make", "refresh", "start", "run", "check")
"""Actions that bring back what a reboot has taken, or only look: who allows a reboot allows them."""


@dataclass(frozen=True)
class Wanted:
    """A resource and the role that wants it."""

    role: str
    resource: Resource


@dataclass(frozen=True)
class Plan:
    """Everything that will be done to one host, in order.

    :ivar notes: what the operator should know and no change will mend.
    :ivar granted: permissions that were given for this plan.
    """

    host: str
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for two plans that do the same: what is approved is this.

        What the host told about the effects is not in it: processes come and go between plan and approval.
        """
        done = [replace(change, simulation="", impact=()) for change in self.changes]
        text = json.dumps([asdict(change) for change in done], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def beyond(self, approved: Plan, *, rebooted: bool = False) -> tuple[Change, ...]:
        """The changes that ``approved`` does not have for the same resource with the same action.

        :param rebooted: the host was rebooted in between, as approved.
        """
        known = {(change.resource, change.action) for change in approved.changes}
        return tuple(
            change
            for change in self.changes
            if (change.resource, change.action) not in known
            and not (rebooted and change.action in AFTER_A_REBOOT)
        )

    def lacks(self, change: Change) -> bool:
        """Whether a change needs a permission that nobody gave."""
        return bool(change.needs) and change.needs not in self.granted

    def next_leg(self) -> Leg:
        """What can be done at once: up to a reboot, and to where a permission is missing."""
        end, stop = len(self.changes), None
        ids = [change.resource for change in self.changes]
        for index, change in enumerate(self.changes):
            if not self.lacks(change):
                continue
            begun = 0 if PERMISSIONS[change.needs].first else index
            begun = min([begun, *(ids.index(cause) for cause in change.causes if cause in ids)])
            if begun < end:
                end, stop = begun, change
        for index, change in enumerate(self.changes[:end]):
            if change.reboot:
                return Leg(replace(self, changes=self.changes[: index + 1]), reboot=change)
        return Leg(replace(self, changes=self.changes[:end]), stop=stop)


@dataclass(frozen=True)
class Leg:
    """A part of a plan that one script carries out.

    :ivar reboot: the change at its end that restarts the host; then the host is planned again.
    :ivar stop: the change for which a permission is missing, if the plan ends there.
    """

    plan: Plan
    reboot: Change | None = None
    stop: Change | None = None

    def refusal(self) -> ChangeError | None:
        """The sentence that the host ends with where a permission is missing."""
        if self.stop is None:
            return None
        permission = PERMISSIONS[self.stop.needs]
        impact = "".join(f"\n{line}" for line in self.stop.impact).strip("\n")
        return ChangeError(
            self.plan.host,
            f"{permission.refusal}: {self.stop.reason}",
            resource=self.stop.resource,
            stderr=impact,
            hint=permission.how,
        )


def probes(wanted: Sequence[Wanted]) -> list[Probe]:
    """One probe for each kind of resource that is wanted."""
    return [kind.probe(members) for kind, members in _by_kind(wanted).items()]


def states(host: str, wanted: Sequence[Wanted], answers: Mapping[str, Output]) -> dict[str, Any]:
    """Read the answers to :func:`probes` into one state for each resource id.

    :raises ProbeError: if an answer cannot be understood.
    """
    found: dict[str, Any] = {}
    for kind, members in _by_kind(wanted).items():
        answer = answers[kind.probe(members).name]
        try:
            found.update(kind.states(members, answer))
        except (ValueError, KeyError) as error:
            tail = answer.err.strip().splitlines()[-3:]
            raise ProbeError(
                host, f"cannot read the state of {kind.kind}: {error}" + "".join(f"\n  {t}" for t in tail)
            ) from error
    return found


def plan(
    host: str, wanted: Sequence[Wanted], found: Mapping[str, Any], granted: tuple[str, ...] = ()
) -> Plan:
    """Compute what makes every wanted resource right, in the order written.

    :raises RefusedError: if a resource refuses the state that it finds.
    """
    changes: list[Change] = []
    notes: list[str] = []
    for item in wanted:
        state, planned = found[item.resource.id], Planned(tuple(changes))
        try:
            change = item.resource.change(state, planned)
        except Refusal as refusal:
            raise RefusedError(host, refusal.message, hint=refusal.hint) from refusal
        notes += item.resource.notes(state, planned)
        if change is not None:
            changes.append(replace(change, role=item.role))
    handlers = [item.resource for item in wanted if isinstance(item.resource, Handler)]
    return Plan(host, _with_debts(tuple(changes), handlers, found), tuple(notes), granted)


def looks(found: Plan) -> list[Probe]:
    """The further questions that planned changes have."""
    return [Probe(f"look at {change.resource}", change.look) for change in found.changes if change.look]


def looked(found: Plan, wanted: Sequence[Wanted], answers: Mapping[str, Output]) -> Plan:
    """The plan with the answers to :func:`looks` in it.

    :raises RefusedError: if an answer shows that a change must not be made.
    """
    resources = {item.resource.id: item.resource for item in wanted}
    changes = []
    for change in found.changes:
        answer = answers.get(f"look at {change.resource}")
        if answer is None:
            changes.append(change)
            continue
        try:
            closer = resources[change.resource].looked(change, answer)
        except Refusal as refusal:
            raise RefusedError(found.host, refusal.message, hint=refusal.hint) from refusal
        changes.append(replace(closer, role=change.role, owes=change.owes, settles=change.settles))
    return replace(found, changes=tuple(changes))


def _with_debts(
    changes: tuple[Change, ...], handlers: Sequence[Handler], found: Mapping[str, Any]
) -> tuple[Change, ...]:
    """Note on every change which handlers it owes, and which it settles by doing their work."""
    owes: dict[int, list[str]] = {}
    settles: dict[int, list[str]] = {}
    planned = Planned(changes)
    for handler in handlers:
        causes = planned.positions(handler.on)
        for index in causes:
            owes.setdefault(index, []).append(handler.note)
        covers = planned.positions(handler.covered_by)
        if causes or found[handler.id]:
            for index in covers:
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


def _by_kind(wanted: Sequence[Wanted]) -> dict[type[Resource], list[Any]]:
    kinds: dict[type[Resource], list[Any]] = {}
    for item in wanted:
        kinds.setdefault(type(item.resource), []).append(item.resource)
    return kinds


def save(plans: Sequence[Plan]) -> str:
    """Write plans as text. It may hold secret values that land on hosts: keep the file to yourself."""
    return json.dumps(
        {"schema": SCHEMA, "plans": {p.host: asdict(p) for p in plans}},
        indent=1,
    )


def load(text: str, name: str) -> dict[str, Plan]:
    """Read what :func:`save` wrote; ``name`` is the file's, for messages.

    :raises UsageError: if it is not a saved plan of this version.
    """
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise UsageError(
                f"{name}: saved plan of schema {document['schema']}, this version reads {SCHEMA}",
                hint="plan again with this version",
            )
        return {host: _plan(host, row) for host, row in document["plans"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{name}: not a saved plan: {error}", hint="make one with: inv plan --out FILE"
        ) from error


def _plan(host: str, row: Mapping[str, Any]) -> Plan:
    rows = row["changes"]
    if not isinstance(rows, list):
        raise TypeError(f"the changes of a host are {type(rows).__name__}")
    return Plan(host, tuple(map(_change, rows)), _texts(row, "notes"), _texts(row, "granted"))


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = row[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} is {type(value).__name__}")
    return tuple(value)


def _change(row: Mapping[str, Any]) -> Change:
    values: dict[str, Any] = {f.name: row[f.name] for f in fields(Change)}
    values |= {name: _texts(row, name) for name in LISTS}
    for name, value in values.items():
        if name not in LISTS and type(value) is not (int if name == "reboot" else str):
            raise TypeError(f"{name} of a change is {type(value).__name__}")
    if values["needs"] and values["needs"] not in PERMISSIONS:
        raise ValueError(f"there is no permission {values['needs']!r}")
    return Change(**values)
