"""Resources and their states in, a plan out; plans compared, saved and loaded. No I/O here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from provision.command import Output, Probe
from provision.errors import ProbeError, Refusal, RefusedError, UsageError
from provision.resources.base import Change, Planned, Resource
from provision.resources.handler import Handler

SCHEMA = 1
LISTS = ("owes", "settles", "signals")
"""Fields of a change that hold several names; all others are text."""


@dataclass(frozen=True)
class Wanted:
    """A resource and the role that wants it."""

    role: str
    resource: Resource


@dataclass(frozen=True)
class Plan:
    """Everything that will be done to one host, in order."""

    host: str
    changes: tuple[Change, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for two plans that do the same: what is approved is this."""
        text = json.dumps([asdict(change) for change in self.changes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def beyond(self, approved: Plan) -> tuple[Change, ...]:
        """The changes that ``approved`` does not have for the same resource with the same action."""
        known = {(change.resource, change.action) for change in approved.changes}
        return tuple(change for change in self.changes if (change.resource, change.action) not in known)


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


def plan(host: str, wanted: Sequence[Wanted], found: Mapping[str, Any]) -> Plan:
    """Compute what makes every wanted resource right, in the order written.

    :raises RefusedError: if a resource refuses the state that it finds.
    """
    changes: list[Change] = []
    for item in wanted:
        try:
            change = item.resource.change(found[item.resource.id], Planned(tuple(changes)))
        except Refusal as refusal:
            raise RefusedError(host, refusal.message, hint=refusal.hint) from refusal
        if change is not None:
            changes.append(replace(change, role=item.role))
    handlers = [item.resource for item in wanted if isinstance(item.resource, Handler)]
    return Plan(host, _with_debts(tuple(changes), handlers, found))


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
        {"schema": SCHEMA, "plans": {p.host: [asdict(change) for change in p.changes] for p in plans}},
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
        return {host: Plan(host, _changes(rows)) for host, rows in document["plans"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{name}: not a saved plan: {error}", hint="make one with: inv plan --out FILE"
        ) from error


def _changes(rows: Any) -> tuple[Change, ...]:
    if not isinstance(rows, list):
        raise TypeError(f"the changes of a host are {type(rows).__name__}")
    return tuple(map(_change, rows))


def _change(row: Mapping[str, Any]) -> Change:
    values: dict[str, Any] = {f.name: row[f.name] for f in fields(Change)}
    for name, value in values.items():
        several = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (several if name in LISTS else isinstance(value, str)):
            raise TypeError(f"{name} of a change is {type(value).__name__}")
    values |= {name: tuple(values[name]) for name in LISTS}
    return Change(**values)
