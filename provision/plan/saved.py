"""Plans as text, to be approved now and applied later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from provision.errors import UsageError
from provision.plan.plan import Plan

SCHEMA = 4


_PLANS = TypeAdapter(dict[str, Plan])


def save(plans: Sequence[Plan]) -> str:
    """Write plans as text. It may hold secret values that land on hosts: keep the file to yourself."""
    rows: dict[str, Any] = {}
    for plan in plans:
        changes = tuple(replace(change, preview=None) for change in plan.changes)
        rows[plan.host] = asdict(replace(plan, changes=changes))
    return json.dumps({"schema": SCHEMA, "plans": rows}, indent=1)


def load(text: str, name: str) -> dict[str, Plan]:
    """Read what :func:`save` wrote; ``name`` is the file's, for messages.

    :raises UsageError: if it is not a saved plan of this version.
    """
    try:
        document = json.loads(text)
        schema = document["schema"]
        if schema != SCHEMA:
            raise UsageError(
                f"{name}: saved plan of schema {schema}, this version reads {SCHEMA}",
                hint="plan again with this version",
            )
        # Not as JSON, which pydantic does not read where a text holds half a character.
        found = _PLANS.validate_python(document["plans"])
        if _text({host: asdict(plan) for host, plan in found.items()}) != _text(document["plans"]):
            raise ValueError("it has values that a plan does not have")
        if other := next((host for host, plan in found.items() if plan.host != host), None):
            raise ValueError(f"the plan of {other} is for {found[other].host}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = _first(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"{name}: not a saved plan: {said}", hint="make one with: inv plan --out FILE"
        ) from error
    return found


def _text(rows: Any) -> str:
    return json.dumps(rows, sort_keys=True)


def _first(error: ValidationError) -> str:
    """Where the first fault is, and what it is."""
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
