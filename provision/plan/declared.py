"""Settings of roles and facts in, declared resources out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.errors import Refusal, RefusedError
from provision.facts import Facts
from provision.resource import AnyResource
from provision.role import Role, Settings


@dataclass(frozen=True)
class Declared:
    """A resource and the role that declares it."""

    role: str
    resource: AnyResource


def declare(host: str, settings: Mapping[Role, Settings], facts: Facts) -> tuple[Declared, ...]:
    """All resources of all roles of a host, in the order written, except for what has to come first.

    Two roles may declare the very same thing, never different ones.

    :raises RefusedError: if a role refuses the host, or two roles disagree.
    """
    found: dict[str, Declared] = {}
    for role, values in settings.items():
        try:
            resources = role.resources(values, facts)
        except Refusal as refusal:
            raise RefusedError(host, refusal.message, hint=refusal.hint) from refusal
        for resource in resources:
            first = found.setdefault(resource.id, Declared(role.name, resource))
            if first.resource != resource:
                raise RefusedError(
                    host,
                    f"roles {first.role} and {role.name} declare {resource.id} differently",
                    hint="take one of the two roles off the host",
                )
    return tuple(sorted(found.values(), key=lambda item: not item.resource.first))
