"""Approved plans as text: people read them now, and fresh plans are compared with them later.

The text has the changes of each host as ``--json`` shows them, a digest of each change, and the permissions
that were given. It has no script and no secret, and nothing in it is run: each host is planned again, and
that plan is applied if its changes have the approved digests. Permissions are those of the applying run.

Digests are over what lands on hosts, secrets included. With a plain hash, whoever has the text could try
short secrets until one fits; a salt in the text does not help against that. So digests are HMAC-SHA256 with a
random key that is never in the text (:mod:`provision.cli.saved_plans` keeps it). Without the key no guess can
be tested, and no approval can be added.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from provision.errors import LONGEST, RefusedError, UsageError, visible
from provision.plan.plan import Plan
from provision.plan.report import change_row, counted
from provision.resource import AWAIT, CHECK, Change
from provision.role import Role, Settings

SCHEMA = 4

NAMED = 20
"""Differences that a refusal names, which is one sentence."""

AGAIN = "plan again: inv plan --hosts PATTERN --out FILE"

_NOT_APPROVED: dict[str, Any] = {
    **dict.fromkeys(("summary", "reason", "simulation", "varying"), ""),
    "sign": "~",
    "impact": (),
    "preview": None,
    "needs": None,
}
"""What may differ between two plans of one change: words, what the host told of effects, permissions."""


@dataclass(frozen=True)
class ApprovedChange:
    """What a change is compared by, and how a difference names it."""

    role: str
    resource: str
    action: str
    summary: str
    digest: str


@dataclass(frozen=True)
class Approval:
    """What was approved for one host.

    :ivar settings: digests of the settings of its roles.
    """

    changes: tuple[ApprovedChange, ...]
    settings: Mapping[str, str]


@dataclass(frozen=True)
class SavedPlans:
    """What was approved, host by host.

    :ivar key: tells which key the digests were made with.
    """

    key: str
    hosts: Mapping[str, Approval]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that were planned."""
        return tuple(dict.fromkeys(role for host in self.hosts.values() for role in host.settings))

    def misfits(self, chosen: Mapping[str, Collection[str]], known: Collection[str]) -> list[str]:
        """Why a run cannot be the approved one, before any host is asked; a line for each host and change.

        :param chosen: the roles of each host of the run.
        :param known: all hosts of the inventory; a run may leave some out, if others have approved changes.
        """
        found = [f"{host}: no plan of it was approved" for host in chosen if host not in self.hosts]
        some = any(self.hosts[host].changes for host in chosen if host in self.hosts)
        for host, approval in self.hosts.items():
            if host in chosen or host not in known or not some:
                roles = chosen.get(host, ())
                found += [
                    f"{host}: approved, and no part of this run: {change.summary}"
                    for change in approval.changes
                    if change.role not in roles
                ]
        return [visible(line) for line in found]

    def refusal(self, plan: Plan, settings: Mapping[Role, Settings], key: bytes) -> RefusedError | None:
        """Why a fresh plan of a host is not the approved one; None if it is, or if nothing is left to do.

        Nothing is left only where the settings are those for which the changes were approved.
        """
        approval, now = self.hosts[plan.host], _settings(plan.host, settings, key)
        roles = sorted(
            role for role in {**approval.settings, **now} if approval.settings.get(role) != now.get(role)
        )
        fresh = {change.resource: change for change in plan.changes if change.action != CHECK}
        known = {change.resource: change for change in approval.changes if change.action != CHECK}
        if not fresh and not any(change.role in roles for change in known.values()):
            return None
        found = [f"new: {change.summary}" for name, change in fresh.items() if name not in known]
        found += [
            f"gone: {change.summary}"
            for name, change in known.items()
            if name not in fresh and change.action != AWAIT
        ]
        both = [name for name in known if name in fresh]
        for name in both:
            if _of_change(plan.host, fresh[name], key) != known[name].digest:
                before, after = known[name].summary, fresh[name].summary
                found.append(f"different: {after}" + (f" (approved: {before})" if before != after else ""))
        if not found and both != [name for name in fresh if name in known]:
            found.append("different: the order of its changes")
        if not found:
            return None
        more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
        since = f"the settings of {', '.join(roles)} changed" if roles else "the settings are the same"
        said = "; ".join([*found[:NAMED], *more])
        message = f"{counted(len(found), 'difference')} from the approved plan ({since}): {said}"
        return RefusedError(plan.host, message, hint=AGAIN)


def save(plans: Mapping[str, Plan], settings: Mapping[str, Mapping[Role, Settings]], key: bytes) -> str:
    """Write the plans of hosts as text, with the settings that they were made from."""
    hosts = {
        host: {
            "granted": plan.granted,
            "notes": plan.notes,
            "changes": [
                {**change_row(change, diff=True), "digest": _of_change(host, change, key)}
                for change in plan.changes
            ],
            "settings": _settings(host, settings[host], key),
        }
        for host, plan in plans.items()
    }
    return json.dumps({"schema": SCHEMA, "key": key_id(key), "hosts": hosts}, indent=1) + "\n"


def load(text: str, name: str) -> SavedPlans:
    """Read what :func:`save` wrote; ``name`` is the file's, for messages.

    :raises UsageError: if it is not a saved plan of this version.
    """
    try:
        document = json.loads(text)
        schema = document["schema"]
        if not isinstance(schema, int):
            raise ValueError("its schema is no number")
        if schema != SCHEMA:
            raise UsageError(
                f"{name}: saved plan of schema {visible(str(schema))[:20]}, this version reads {SCHEMA}",
                hint=AGAIN,
            )
        # Not as JSON, which pydantic does not read where a text holds half a character.
        return _SAVED.validate_python(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = _first(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"{name}: not a saved plan: {visible(said[:LONGEST])}",
            hint="make one with: inv plan --out FILE",
        ) from error


def key_id(key: bytes) -> str:
    """Tells keys apart, and nothing else about them."""
    return _digest(key)[:16]


def _of_change(host: str, change: Change, key: bytes) -> str:
    return _digest(key, host, asdict(replace(change, **_NOT_APPROVED)))


def _settings(host: str, settings: Mapping[Role, Settings], key: bytes) -> dict[str, str]:
    return {role.name: _digest(key, host, values.model_dump()) for role, values in settings.items()}


def _digest(key: bytes, *values: object) -> str:
    return hmac.digest(key, json.dumps(values, sort_keys=True, default=repr).encode(), "sha256").hex()


def _first(error: ValidationError) -> str:
    """Where the first fault is, and what it is."""
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


_SAVED = TypeAdapter(SavedPlans)
