"""What a resource is: a wanted state, how the host is asked for it, and what makes it right.

A resource is a frozen value and does no I/O. Its *kind* (the class) joins the questions of all its
resources into one probe, so a host answers for twenty files or ten units with one small script.
"""

from __future__ import annotations

import difflib
import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from provision.command import Output, Probe


class Missing(enum.Enum):
    """The two ways of having no value, which are never mixed up."""

    ABSENT = "absent"
    UNKNOWN = "known after apply"


ABSENT = Missing.ABSENT
"""The host was asked and has no such thing."""

UNKNOWN = Missing.UNKNOWN
"""The host cannot tell before an earlier change is made (Docker's images before Docker is there)."""


@dataclass(frozen=True)
class Permission:
    """Something that an operator has to allow before it is done.

    :ivar refusal: the beginning of the sentence that a host without it ends with.
    :ivar how: how it is given.
    :ivar first: whether nothing at all may be touched without it; otherwise what comes before is done.
    """

    refusal: str
    how: str
    first: bool = False


PERMISSIONS = {
    "branch-change": Permission(
        "driver branch change is not allowed", "read the plan, then add --allow-branch-change", first=True
    ),
    "reboot": Permission("reboot needed", "--reboot allows it for this run, driver.reboot: allowed for all"),
    "docker-restart": Permission(
        "restart of Docker needed", "docker.restart: allowed; or stop these containers, or use live-restore"
    ),
}
"""All permissions by name."""


@dataclass(frozen=True)
class Change:
    """One step of a plan: what it does, why, and the sh text that does and proves it.

    :ivar resource: id of the resource, unique on the host (``file:/etc/docker/daemon.json``).
    :ivar action: one word: create, update, remove, install, upgrade, downgrade, start, restart, …
    :ivar summary: what will be done, for people; one line.
    :ivar reason: why it is needed; one line, may be empty.
    :ivar diff: unified diff or an equivalent; empty where there is nothing to show or it is secret.
    :ivar script: sh text that makes the change.
    :ivar done: sh text that succeeds when the wanted outcome is there. It runs before the script (then
        the script is skipped) and after it (then the step fails if it does not succeed).
    :ivar guard: sh text that succeeds while the host is as the plan saw it; otherwise the step is refused.
    :ivar owes: handlers that must run from now on, even if this run ends before they do.
    :ivar settles: handlers whose work this change does.
    :ivar signals: further names that handlers may listen to.
    :ivar needs: the permission that it takes and does not have from the settings: a name in
        :data:`PERMISSIONS`, or empty.
    :ivar causes: ids of resources whose changes are only begun if this one may follow: without its
        permission the run stops before the first of them.
    :ivar impact: what the users of the host will notice, such as containers that stop; one line each.
    :ivar look: sh text whose output tells more about the change (apt's own simulation). It runs only
        where the change is planned, and its answer goes to :meth:`Resource.looked`.
    :ivar simulation: what the host's own tools say that they would do.
    :ivar reboot: seconds within which the host must be back; 0 for a change that is no reboot.
    :ivar role: the role that wants it; filled in by the plan.
    """

    resource: str
    action: str
    summary: str
    script: str
    done: str
    reason: str = ""
    diff: str = ""
    guard: str = ""
    owes: tuple[str, ...] = ()
    settles: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    needs: str = ""
    causes: tuple[str, ...] = ()
    impact: tuple[str, ...] = ()
    look: str = ""
    simulation: str = ""
    reboot: int = 0
    role: str = ""


@dataclass(frozen=True)
class Planned:
    """The changes planned so far, in order, for resources whose change depends on earlier ones."""

    changes: tuple[Change, ...] = ()

    def positions(self, names: Sequence[str]) -> tuple[int, ...]:
        """Where in the plan there are changes that answer to one of ``names``.

        A change answers to the id of its resource, to ``ID:ACTION`` and to its signals.
        """
        wanted = set(names)
        return tuple(
            index
            for index, change in enumerate(self.changes)
            if not wanted.isdisjoint((change.resource, f"{change.resource}:{change.action}", *change.signals))
        )

    def at(self, position: int) -> Change:
        """The change at a position."""
        return self.changes[position]


class Resource(ABC):
    """A wanted state of one thing on a host.

    :cvar first: whether it comes before everything else of all roles: what is in the way of every package
        operation has to be gone before the first role has one.
    """

    kind: ClassVar[str]
    first: ClassVar[bool] = False

    @property
    @abstractmethod
    def id(self) -> str:
        """The resource's name, unique on a host."""

    @classmethod
    @abstractmethod
    def probe(cls, resources: Sequence[Self]) -> Probe:
        """The one question that tells the state of all ``resources`` of this kind."""

    @classmethod
    @abstractmethod
    def states(cls, resources: Sequence[Self], answer: Output) -> Mapping[str, Any]:
        """Read the answer to :meth:`probe` into one state for each resource id.

        :raises ValueError: if the answer cannot be understood.
        """

    @abstractmethod
    def change(self, state: Any, planned: Planned) -> Change | None:
        """Return what makes the resource right given its state, or None if it is right."""

    def notes(self, state: Any, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """What an operator should know and no change will mend; one line each."""
        return ()

    def looked(self, change: Change, answer: Output) -> Change:  # noqa: ARG002
        """The change after its ``look`` was answered.

        :raises Refusal: if the answer shows that it must not be done.
        """
        return change


def unified(old: str, new: str, name: str) -> str:
    """Return a unified diff of two texts, with ``name`` on both sides; empty if they are equal."""
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"{name} (now)", f"{name} (planned)"
        )
    )
