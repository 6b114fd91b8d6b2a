"""What a resource is: a declared state, how the host is asked for it, and the change that makes it right.

A resource is a frozen value and does no I/O. Its *kind* (the class) joins the questions of all its
resources into one probe, so a host answers for twenty files or ten units with one small script.
"""

from __future__ import annotations

import difflib
import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from provision.probe import Output, Probe, quote, words
from provision.secrecy import without_secrets
from provision.shell import constant

State = TypeVar("State")


class Missing(enum.Enum):
    """The two ways of having no value, which are never mixed up."""

    ABSENT = "absent"
    UNKNOWN = "known after apply"


ABSENT = Missing.ABSENT
"""The host was asked and has no such thing."""

UNKNOWN = Missing.UNKNOWN
"""The host cannot tell before an earlier change is made (Docker's images before Docker is there)."""

CHECK = "check"
"""The action of a change that only looks. Nobody has to approve it."""

AWAIT = "await"
"""The action of a change that waits for what begins by itself."""

LINES = "shell/lines.sh"

OWED = constant("shell/steps.sh", "owed")
"""Folder on a host with a note for each handler that is owed."""


@dataclass(frozen=True)
class Permission:
    """Something that an operator has to allow before it is done.

    :ivar name: unique; the permissions of a plan are given by their names.
    :ivar refusal: the beginning of the sentence that a host without it ends with.
    :ivar how: how it is given.
    :ivar first: whether nothing at all may be touched without it; otherwise what comes before is done.
    """

    name: str
    refusal: str
    how: str
    first: bool = False


@dataclass(frozen=True)
class Signal:
    """Something that happens to a host and that handlers of other roles listen to."""

    name: str


@dataclass(frozen=True)
class Change:
    """One step of a plan: what it does, why, and the sh text that does and proves it.

    :ivar resource: id of the resource, unique on the host (``file:/etc/docker/daemon.json``).
    :ivar action: one word: create, update, remove, install, upgrade, downgrade, start, restart, …
    :ivar summary: what will be done, for people; one line.
    :ivar reason: why it is needed; one line, may be empty.
    :ivar sign: ``+`` for something new, ``-`` for something that goes, ``~`` for anything else.
    :ivar diff: unified diff or an equivalent; empty where there is nothing to show or it is secret.
    :ivar script: sh text that makes the change.
    :ivar done: sh text that succeeds when the declared outcome is there. It runs before the script (then
        the script is skipped) and after it (then the step fails if it does not succeed).
    :ivar guard: sh text that succeeds while the host is as the plan saw it; otherwise the step is refused.
    :ivar varying: sh text that sets variables of these three: what may be another in each plan while the
        change is the same. It is no part of what is approved.
    :ivar owes: handlers that must run from now on, even if this run ends before they do.
    :ivar settles: handlers whose work this change does.
    :ivar signals: further names that handlers may listen to.
    :ivar needs: the permission that it takes and that the settings do not give.
    :ivar causes: ids of resources whose changes are only begun if this one may follow: without its
        permission the run stops before the first of them.
    :ivar impact: what the users of the host will notice, such as containers that stop; one line each.
    :ivar preview: asks the host's own tools what they would do (apt's simulation). It is asked only where the
        change is planned, and its answer goes to :meth:`Resource.refine`.
    :ivar simulation: what the host's own tools say that they would do.
    :ivar reboot: seconds within which the host must be back; 0 for a change that is no reboot.
    :ivar after_reboot: whether it only brings back what a reboot takes, or only checks: who allows a reboot
        allows it too.
    :ivar reloads_systemd: whether systemd reads its units again on the way.
    :ivar role: the role that declares it; filled in by the plan.
    :ivar leaves: what it leaves on the host, as lines of the record; filled in by the plan.
    :ivar shell: the files below ``templates/`` whose functions its texts call; filled in by the plan.
    :ivar functions: tells whether these functions are still those of the plan; filled in by the plan.
    """

    resource: str
    action: str
    summary: str
    script: str
    done: str
    reason: str = ""
    sign: Literal["+", "-", "~"] = "~"
    diff: str = ""
    guard: str = ""
    varying: str = ""
    owes: tuple[str, ...] = ()
    settles: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    needs: Permission | None = None
    causes: tuple[str, ...] = ()
    impact: tuple[str, ...] = ()
    preview: Probe | None = None
    simulation: str = ""
    reboot: int = 0
    after_reboot: bool = False
    reloads_systemd: bool = False
    role: str = ""
    leaves: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    functions: str = ""


@dataclass(frozen=True)
class Planned:
    """The changes planned so far, in order, for resources whose change depends on earlier ones."""

    changes: tuple[Change, ...] = ()

    def positions(self, names: Sequence[str]) -> tuple[int, ...]:
        """Where in the plan there are changes that answer to one of ``names``.

        A change answers to the id of its resource, to ``ID:ACTION`` and to its signals.
        """
        asked = set(names)
        return tuple(
            index
            for index, change in enumerate(self.changes)
            if not asked.isdisjoint((change.resource, f"{change.resource}:{change.action}", *change.signals))
        )

    def resources(self, positions: Sequence[int]) -> str:
        """The resources of the changes at these positions, each once, for a sentence."""
        return ", ".join(dict.fromkeys(self.changes[index].resource for index in positions))


@dataclass(frozen=True)
class RenderedFile:
    """A file as it is written where there is none; ``mode`` has four octal digits.

    :ivar origin: the address from which the host fetches it; its content is not known here then.
    """

    path: str
    content: bytes
    mode: str
    origin: str = ""


class Resource(ABC, Generic[State]):
    """A declared state of one thing on a host.

    :cvar kind: the name of the kind.
    :cvar first: whether it comes before everything else of all roles: where packages come from is settled
        before the first role has a package operation.
    :ivar shell: the files below ``templates/`` whose functions its changes call.
    """

    kind: ClassVar[str]
    first: ClassVar[bool] = False
    shell: tuple[str, ...] = ()

    @property
    @abstractmethod
    def id(self) -> str:
        """The resource's name, unique on a host."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """What is on the host because of it, as ``shell/record.sh`` has it: ``file:PATH``, ``hold:NAME``.

        It goes when the settings no longer declare it, or its role is removed. Nothing as a rule.
        """
        return ()

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        """The kind whose one question tells the states of this kind, too; each asks for itself as a rule."""
        return cls

    @classmethod
    @abstractmethod
    def probe(cls, resources: Sequence[Self]) -> Probe:
        """The one question that tells the state of all ``resources`` of this kind."""

    @classmethod
    @abstractmethod
    def states(cls, resources: Sequence[Self], answer: Output) -> Mapping[str, State]:
        """Read the answer to :meth:`probe` into one state for each resource id.

        :raises ValueError: if the answer cannot be understood.
        """

    @abstractmethod
    def bare(self) -> State:
        """The state on a host that has nothing of what roles declare, for plans without a host."""

    @abstractmethod
    def change(self, state: State, planned: Planned) -> Change | None:
        """Return what makes the resource right given its state, or None if it is right."""

    def notes(self, state: State, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """What an operator should know and no change will mend; one line each."""
        return ()

    def refine(self, change: Change, answer: Output) -> Change:  # noqa: ARG002
        """The change after its preview was answered.

        :raises Refusal: if the answer shows that it must not be done.
        """
        return change

    def rendered(self) -> RenderedFile | None:
        """The file that it writes on a host that has none; None for what is no file."""
        return None


class Single(Resource[State]):
    """A kind of which a host has one, such as its driver or its dockerd."""

    @property
    def id(self) -> str:
        """The name of the kind."""
        return self.kind

    @classmethod
    def probe(cls, resources: Sequence[Self]) -> Probe:
        """The question of the one resource."""
        return resources[0].question()

    @classmethod
    def states(cls, resources: Sequence[Self], answer: Output) -> Mapping[str, State]:
        """The state of the one resource."""
        return {resource.id: resource.read(answer) for resource in resources}

    @abstractmethod
    def question(self) -> Probe:
        """What tells its state."""

    @abstractmethod
    def read(self, answer: Output) -> State:
        """Read the answer to :meth:`question`.

        :raises ValueError: if the answer cannot be understood.
        """


@dataclass(frozen=True)
class Handler(Resource[bool]):
    """Work that is owed after other changes, such as a daemon-reload or a restart.

    It runs at this place of the plan if a change that it listens to is in the plan. A change that owes a
    handler leaves a note on the host before it starts; the handler removes the note when it has run. So a
    run that ends in between leaves a debt that the next plan sees.

    :ivar name: what it does, in words: ``restart docker.service``.
    :ivar on: ids of resources, or ``ID:ACTION``, or signals of changes, that make it necessary.
    :ivar script: sh text that does it.
    :ivar covered_by: ids (or ``ID:ACTION``) whose change does the same work, so the handler is dropped.
    :ivar signals: what it tells the handlers of other roles.
    :ivar reloads_systemd: whether it makes systemd read its units again.
    :ivar waits: whether it only waits for what comes by itself.
    :ivar left_to: the command that runs it, where its role is not part of the run: then it is owed and
        said, and not done.
    """

    name: str
    on: tuple[str | Signal, ...]
    script: str
    covered_by: tuple[str | Signal, ...] = ()
    signals: tuple[Signal, ...] = ()
    reloads_systemd: bool = False
    waits: bool = False
    left_to: str = ""
    shell: tuple[str, ...] = ("shell/units.sh",)
    kind: ClassVar[str] = "handler"

    @property
    def id(self) -> str:
        """``handler:NAME``."""
        return f"handler:{self.name}"

    @property
    def note(self) -> str:
        """The name of its note on the host."""
        return re.sub(r"[^A-Za-z0-9@._-]+", "-", self.name)

    @classmethod
    def probe(cls, resources: Sequence[Handler]) -> Probe:  # noqa: ARG003
        """List the notes."""
        return Probe("handler", words("names_in", OWED), (LINES,), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Handler], answer: Output) -> Mapping[str, bool]:
        """Whether each handler is owed by an earlier run."""
        notes = set(answer.out.split("\n"))
        return {r.id: r.note in notes for r in resources}

    def bare(self) -> bool:
        """Nothing is owed."""
        return False

    def causes(self, planned: Planned) -> tuple[int, ...]:
        """Where in the plan there are changes that it listens to."""
        return planned.positions(names_of(self.on))

    def covers(self, planned: Planned) -> tuple[int, ...]:
        """Where in the plan there are changes that do its work."""
        return planned.positions(names_of(self.covered_by))

    def notes(self, state: bool, planned: Planned) -> Sequence[str]:
        """That it is owed and not done."""
        owed = self.left_to and (state or self.causes(planned))
        return (f"{self.name}: owed, and not part of this run; {self.left_to} does it",) if owed else ()

    def change(self, state: bool, planned: Planned) -> Change | None:
        """Run if owed, or if a change that it listens to comes before it and none after that covers it."""
        causes, covers = self.causes(planned), self.covers(planned)
        if self.left_to or (not causes and not state) or (covers and max(covers) > max(causes, default=-1)):
            return None
        return Change(
            resource=self.id,
            action="run",
            summary=self.name,
            reason=f"after {planned.resources(causes)}" if causes else "an earlier run ended before it",
            done=f"not_owed {quote(self.note)}",
            script=self.script,
            settles=(self.note,),
            signals=names_of(self.signals),
            after_reboot=True,
            reloads_systemd=self.reloads_systemd,
        )


def names_of(listened: Sequence[str | Signal]) -> tuple[str, ...]:
    """What changes answer to: names as they are, and those of signals."""
    return tuple(item.name if isinstance(item, Signal) else item for item in listened)


def unified(old: str, new: str, name: str) -> str:
    """Return a unified diff of two texts, with ``name`` on both sides; empty if they are equal.

    It shows no secrets.
    """
    diff = "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"{name} (now)", f"{name} (planned)"
        )
    )
    return without_secrets(diff)


AnyResource = Resource[Any]
"""A resource of any kind."""
