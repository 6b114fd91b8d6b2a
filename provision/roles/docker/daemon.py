"""What the running dockerd has loaded of its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe, words
from provision.resource import UNKNOWN, Change, Missing, Planned, Single
from provision.roles.docker.engine import SHELL
from provision.roles.docker.restart import DAEMON

Loaded = tuple[str, frozenset[str]]
"""Default runtime and names of all runtimes."""


@dataclass(frozen=True)
class DaemonLoaded(Single[Loaded | Missing]):
    """The running dockerd knows these runtimes and uses this one by default.

    What is on disk counts for nothing until dockerd has read it, so this asks dockerd.
    """

    default_runtime: str
    runtimes: tuple[str, ...]
    kind: ClassVar[str] = "daemon-loaded"
    shell = (DAEMON,)

    @property
    def id(self) -> str:
        return "docker:loaded-configuration"

    def question(self) -> Probe:
        return Probe(self.kind, "docker_runtimes", (SHELL,))

    def read(self, answer: Output) -> Loaded | Missing:
        text = answer.out.strip()
        if not answer.ok or text == "absent" or not text:
            return UNKNOWN
        default, _, runtimes = text.partition(" ")
        try:
            # Without an answer of dockerd, newer clients print empty values and succeed.
            name = str(json.loads(default))
            return (name, frozenset(json.loads(runtimes) or ())) if name else UNKNOWN
        except (json.JSONDecodeError, TypeError):
            return UNKNOWN

    def bare(self) -> Missing:
        return UNKNOWN

    def change(self, state: Loaded | Missing, planned: Planned) -> Change | None:
        """Reload dockerd where it runs with something else and nothing in the plan reloads it anyway."""
        if isinstance(state, Missing) or planned.positions(
            (
                "service:docker.service:start",
                "handler:restart docker.service",
                "handler:reload docker.service",
            )
        ):
            return None
        default, names = state
        if default == self.default_runtime and names.issuperset(self.runtimes):
            return None
        knows = words(self.default_runtime, *self.runtimes)
        return Change(
            resource=self.id,
            action="reload",
            summary="reload docker.service (running containers are not touched)",
            reason=f"dockerd runs with default runtime {default} and knows {', '.join(sorted(names))}",
            done=f"docker_knows {knows}",
            script=f"reload_docker {knows}",
        )
