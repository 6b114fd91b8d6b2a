"""What the running dockerd has loaded of its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.probe import words
from provision.resource import UNKNOWN, Change, Missing, Planned
from provision.resources.dockerd import OfDockerd, Told
from provision.roles.docker.restart import DAEMON
from provision.roles.docker.text import DAEMON_JSON

Loaded = tuple[str, frozenset[str]]
"""Default runtime and names of all runtimes."""


@dataclass(frozen=True)
class DaemonLoaded(OfDockerd[Loaded | Missing]):
    """The running dockerd knows these runtimes and uses this one by default.

    What is on disk counts for nothing until dockerd has read it. So this asks dockerd, where it has not
    started since the file last changed.
    """

    default_runtime: str
    runtimes: tuple[str, ...]
    kind: ClassVar[str] = "daemon-loaded"
    read_from: ClassVar[str] = DAEMON_JSON
    shell = (DAEMON,)

    @property
    def id(self) -> str:
        return "docker:loaded-configuration"

    @property
    def places(self) -> tuple[str, ...]:
        return ("/info",)

    def seen(self, *told: Told) -> Loaded | Missing:
        default = told[0].document.get("DefaultRuntime")
        return (str(default), told[0].strings("Runtimes")) if told[0].status == 200 and default else UNKNOWN

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
