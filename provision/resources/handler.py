"""Handlers: work that is owed after other changes, such as a daemon-reload or a restart.

A change that owes a handler leaves a note on the host before it starts; the handler removes the note
when it has run. So a run that ends in between leaves a debt that the next plan sees, instead of a
daemon that runs on with its old configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.command import Output, Probe, quote
from provision.resources.base import Change, Planned, Resource

OWED = "/var/lib/provision/owed"
"""Folder of the notes on a host."""


@dataclass(frozen=True)
class Handler(Resource):
    """Work to do at this place of the plan if one of the changes it listens to is in the plan.

    :ivar name: what it does, in words: ``restart docker.service``.
    :ivar on: ids of resources, or ``ID:ACTION``, or signals of changes, that make it necessary.
    :ivar script: sh text that does it.
    :ivar covered_by: ids (or ``ID:ACTION``) whose change does the same work, so the handler is dropped.
    """

    name: str
    on: tuple[str, ...]
    script: str
    covered_by: tuple[str, ...] = ()
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
        return Probe("handler", f"ls {quote(OWED)} 2>/dev/null || :")

    @classmethod
    def states(cls, resources: Sequence[Handler], answer: Output) -> Mapping[str, bool]:
        """Whether each handler is owed by an earlier run."""
        notes = set(answer.out.split("\n"))
        return {r.id: r.note in notes for r in resources}

    def change(self, state: bool, planned: Planned) -> Change | None:
        """Run if owed, or if a change that it listens to comes before it and none after that covers it."""
        causes = planned.positions(self.on)
        covers = planned.positions(self.covered_by)
        if (not causes and not state) or (covers and max(covers) > max(causes, default=-1)):
            return None
        reason = (
            "after " + ", ".join(dict.fromkeys(planned.at(i).resource for i in causes))
            if causes
            else "an earlier run ended before it"
        )
        return Change(
            resource=self.id,
            action="run",
            summary=self.name,
            reason=reason,
            done=f"not_owed {quote(self.note)}",
            script=self.script,
            settles=(self.note,),
        )
