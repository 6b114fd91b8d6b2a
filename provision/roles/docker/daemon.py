"""What the running dockerd has loaded of its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe, words
from provision.resource import UNKNOWN, Change, Missing, Planned, Resource


@dataclass(frozen=True)
class DaemonLoaded(Resource):
    """The running dockerd knows these runtimes and uses this one by default.

    What is on disk counts for nothing until dockerd has read it, so this asks dockerd.
    """

    default_runtime: str
    runtimes: tuple[str, ...]
    kind: ClassVar[str] = "daemon-loaded"

    @property
    def id(self) -> str:
        """There is one dockerd on a host."""
        return "docker:loaded-configuration"

    @classmethod
    def probe(cls, resources: Sequence[DaemonLoaded]) -> Probe:  # noqa: ARG003
        """Ask dockerd; bounded, since a sick dockerd does not answer."""
        return Probe(
            "daemon-loaded",
            "command -v docker >/dev/null 2>&1 || { echo absent; exit 0; }\n"
            "timeout 20 docker info --format '{{json .DefaultRuntime}} {{json .Runtimes}}'",
        )

    @classmethod
    def states(
        cls, resources: Sequence[DaemonLoaded], answer: Output
    ) -> Mapping[str, tuple[str, frozenset[str]] | Missing]:
        """Default runtime and names of all runtimes; UNKNOWN while no dockerd answers."""
        return {r.id: _loaded(answer) for r in resources}

    def change(self, state: tuple[str, frozenset[str]] | Missing, planned: Planned) -> Change | None:
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
        return Change(
            resource=self.id,
            action="reload",
            summary="reload docker.service (running containers are not touched)",
            reason=f"dockerd runs with default runtime {default} and knows {', '.join(sorted(names))}",
            done=f"docker_knows {words(self.default_runtime, *self.runtimes)}",
            script=f"reload_docker {words(self.default_runtime, *self.runtimes)}",
        )


def _loaded(answer: Output) -> tuple[str, frozenset[str]] | Missing:
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
