"""Settings of roles and facts in, declared resources out."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from provision.errors import Refusal, RefusedError, UsageError
from provision.facts import Facts
from provision.resource import AnyResource, Handler, Resource
from provision.role import Role, Settings


@dataclass(frozen=True)
class Declared:
    """A resource and the role that declares it.

    :ivar also: further roles that declare the very same.
    """

    role: str
    resource: AnyResource
    also: tuple[str, ...] = ()

    @property
    def leaves(self) -> tuple[str, ...]:
        """What it leaves on the host, as lines of the record."""
        return tuple(f"{role} {item}" for role in (self.role, *self.also) for item in self.resource.leaves)


def declare(host: str, settings: Mapping[Role, Settings], facts: Facts) -> tuple[Declared, ...]:
    """All resources of all roles of a host, in the order written, except for what has to come first.

    Two roles may declare the very same thing, never different ones.

    :raises RefusedError: if a role refuses the host, or two roles disagree.
    """
    found: dict[str, Declared] = {}
    for role, values in settings.items():
        resources = _resources(host, role, values, facts)
        if role.driver is not None:
            facts = replace(facts, declared_driver=role.driver(values))
        for resource in resources:
            first = found.setdefault(resource.id, Declared(role.name, resource))
            if first.role != role.name:
                found[resource.id] = replace(first, also=(*first.also, role.name))
            if first.resource != resource:
                raise RefusedError(
                    host,
                    f"roles {first.role} and {role.name} declare {resource.id} differently",
                    hint="take one of the two roles off the host",
                )
    return tuple(sorted(found.values(), key=lambda item: not item.resource.first))


def left_to_others(
    host: str, left_out: Mapping[Role, Settings], facts: Facts, declared: Sequence[Declared]
) -> tuple[Declared, ...]:
    """The handlers of a host's roles that a run leaves out: what the run changes may owe them work.

    :param declared: what the run has of its own.
    """
    found = {item.resource.id: item for item in declared}
    for role, values in left_out.items():
        try:
            resources = _resources(host, role, values, facts)
        except RefusedError:
            continue  # it does nothing on this host, whatever happens here
        command = f"inv provision --roles {role.name} --hosts {host}"
        for resource in resources:
            if isinstance(resource, Handler) and not resource.waits:
                found.setdefault(resource.id, Declared(role.name, replace(resource, left_to=command)))
    return tuple(found.values())[len(declared) :]


def _resources(host: str, role: Role, values: Settings, facts: Facts) -> list[AnyResource]:
    """What a role declares; a role that fails is at fault for this host, whoever wrote it."""
    try:
        found = list(role.resources(values, facts))
        if wrong := next((item for item in found if not isinstance(item, Resource)), None):
            raise TypeError(f"{wrong!r} is not a resource")
    except Refusal as refusal:
        raise RefusedError(host, refusal.message, hint=refusal.hint) from refusal
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise RefusedError(
            host,
            f"role {role.name} failed: {type(error).__name__}: {error} ({place.filename}:{place.lineno})",
            hint="this is a defect of the role",
        ) from error
    return found
