"""Which host gets which test: a test is repeated for every host, or for every instance on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import pytest

from provision.role import Role, Settings
from provision.roles import choose
from provision.run.target import Target


@dataclass(frozen=True)
class Subject:
    """What one test is about: a host, one of its roles, one instance of that.

    :ivar role: None for a test that is for every host.
    :ivar instance: name of the instance, for a test that is repeated for each.
    """

    target: Target
    role: Role | None = None
    instance: str | None = None

    @property
    def id(self) -> str:
        """Its name in pytest's ids, which ``-k`` looks at."""
        return f"{self.target.name}-{self.instance}" if self.instance else self.target.name


def role_of(module: ModuleType, roles: Sequence[Role]) -> Role | None:
    """The role that a test module is for.

    :raises UsageError: if its ``ROLE`` is no role.
    """
    name = getattr(module, "ROLE", None)
    return choose(roles, [name])[0] if name is not None else None


def subjects_of(target: Target, role: Role | None, *, each: bool) -> list[Subject]:
    """What a test is repeated for on one host."""
    if role is not None and role not in target.settings:
        return []
    if each:
        return [Subject(target, role, name) for name in instances_of(target, role)] if role else []
    return [Subject(target, role)]


def instances_of(target: Target, role: Role) -> Mapping[str, Settings]:
    """The instances in the settings of a role that are not null; none for a role that knows no instances."""
    found: Mapping[str, Settings | None] = getattr(target.settings[role], "instances", {})
    return {name: instance for name, instance in found.items() if instance}


def subject_of(item: pytest.Item) -> Subject | None:
    """What a collected test is about, or None if there is no host for it."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("subject") if callspec else None
    return found if isinstance(found, Subject) else None


def name_of(item: pytest.Item) -> str:
    """The name of a check: that of its function, in words, with the parameters of its own."""
    name = str(getattr(item, "originalname", item.name)).removeprefix("test_").replace("_", " ")
    subject, callspec = subject_of(item), getattr(item, "callspec", None)
    own = str(callspec.id).replace(subject.id, "", 1).strip("-") if callspec and subject else ""
    return f"{name} [{own}]" if own else name


def title_of(item: pytest.Item) -> str:
    """Role, instance and name of a check."""
    subject = subject_of(item)
    words = (subject.role.name if subject and subject.role else "", subject.instance if subject else "")
    about = " ".join(word for word in words if word)
    return f"{about}: {name_of(item)}" if about else name_of(item)
