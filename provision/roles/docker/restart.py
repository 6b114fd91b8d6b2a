"""Starting and restarting dockerd: who notices it, who has to allow it, and what if it does not come up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, by_word, quote, words
from provision.resource import OWED, Change, Handler, Missing, Permission, Planned, names_of
from provision.resources.dockerd import DOCKERD
from provision.resources.service import STARTS, Service, UnitState
from provision.resources.signals import DOCKER_STORE_MOVED
from provision.roles.docker.daemon_json import LIVE_RESTORE
from provision.roles.docker.engine import SHELL
from provision.roles.docker.text import DAEMON_JSON
from provision.shell import constant

DAEMON = "docker/daemon.sh"

PID = constant(DOCKERD, "docker_pid")
"""Written by dockerd when it starts."""

DOCKER_RESTART = Permission(
    "docker-restart",
    "restart of Docker needed",
    "docker.restart: allowed",
)


@dataclass(frozen=True)
class DockerService(Service):
    """docker.service, enabled and running with the daemon.json that is there.

    If dockerd does not start with a new daemon.json, the previous one is put back.

    :ivar runtimes: the default runtime, and all runtimes that dockerd has to know.
    """

    unit: str = "docker.service"
    runtimes: tuple[str, ...] = ()
    kind: ClassVar[str] = "docker-service"
    shell = (DAEMON,)

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:
        """Enable and start it where it is not.

        :raises Refusal: if somebody masked it.
        """
        change = super().change(state, planned)
        if change is None or change.action == "reload":
            return change
        if change.action not in STARTS:
            return replace(change, script=f"enable_unit {quote(self.unit)}")
        return replace(
            change,
            script=f"enable_unit {quote(self.unit)} && start_docker {words(*self.runtimes)}",
            done=f"{change.done} && daemon_json_is_proven",
        )


@dataclass(frozen=True)
class DockerSocket(Service):
    """docker.socket, which docker.service requires: with it masked, docker.service does not start."""

    unit: str = "docker.socket"
    kind: ClassVar[str] = "docker-socket"

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """None.

        :raises Refusal: if somebody masked it.
        """
        if isinstance(state, UnitState) and "masked" in (state.load, state.enabled.removesuffix("-runtime")):
            raise Refusal(
                f"{self.unit} is masked on the host, and docker.service does not start without it",
                hint=f"if Docker may run again: systemctl unmask {self.unit} docker.service",
            )
        return None


@dataclass(frozen=True)
class DockerRestart(Handler):
    """A restart of dockerd. One that stops containers is done only with permission.

    :ivar allowed: whether the settings allow it.
    :ivar holds_back: ids of causes that are not begun if the restart may not follow.
    """

    allowed: bool = False
    holds_back: tuple[str, ...] = ()
    shell: tuple[str, ...] = (DAEMON,)
    kind: ClassVar[str] = "docker-restart"

    @classmethod
    def probe(cls, resources: Sequence[Handler]) -> Probe:  # noqa: ARG003
        """List the notes that are younger than the running dockerd: its start settled the others."""
        return Probe("docker-restart", words("owed_to_docker", OWED), (SHELL,), in_place=True)

    def change(self, state: bool, planned: Planned) -> Change | None:
        """As of any handler; with a preview of what it would stop."""
        change = super().change(state, planned)
        if change is None:
            return None
        rewritten = planned.positions((f"file:{DAEMON_JSON}",))
        outlive, lost = "as now", planned.positions((DOCKER_STORE_MOVED.name,))
        if rewritten:
            outlive = "yes" if planned.positions(names_of((LIVE_RESTORE,))) else "no"
        causes = {planned.changes[index].resource for index in self.causes(planned)}
        return replace(
            change,
            varying=f"allowed={'yes' if self.allowed else 'no'}",
            script=f"outlive={quote(outlive)}; {self.script}",
            causes=tuple(name for name in self.holds_back if name in causes),
            preview=Probe(
                "",
                words("restart_preview", outlive, *(["lost"] * bool(lost))),
                ("docker/restart_preview.sh",),
            ),
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Name what stops, and ask for permission if anything does."""
        found = by_word(answer.out)
        if "active" not in found:
            return change
        kept, stopping = _effects(found)
        needs = replace(DOCKER_RESTART, how=_ways(found)) if stopping and not self.allowed else None
        return replace(change, impact=(*stopping, *kept), needs=needs)


def _ways(found: Mapping[str, list[str]]) -> str:
    """What lets the restart happen; only what helps on this host."""
    if found.get("unit") or not found.get("container"):
        return DOCKER_RESTART.how  # a unit is restarted whatever becomes of the containers
    more = "; or stop these containers"
    if not ("lost" in found or _outlives(found)):
        more += ", or docker.daemon: {live-restore: true}"
    return f"{DOCKER_RESTART.how}{more}"


def _outlives(found: Mapping[str, list[str]]) -> bool:
    """Whether containers outlive the restart (live-restore)."""
    outlive = "".join(found.get("outlive", ()))
    return outlive == "yes" or (outlive == "as now" and found.get("live-restore") == ["true"])


def _effects(found: Mapping[str, list[str]]) -> tuple[list[str], list[str]]:
    """What goes on during the restart, and what stops."""
    outlives = _outlives(found)
    units = found.get("unit", [])
    kept, stopping = [], []
    for line in found.get("container", ()):
        name, image, policy, instance = (line.removeprefix("/").split(" ") + [""] * 4)[:4]
        unit = next((unit for unit in units if instance and unit.endswith(f"@{instance}.service")), "")
        container = f"container {name} ({image})"
        if unit:
            stopping.append(f"{container} stops, and {unit} starts it again")
            units = [other for other in units if other != unit]
        elif "lost" in found:
            stopping.append(f"{container} stops, and Docker does not know it any more")
        elif outlives:
            kept.append(f"{container} keeps running (live-restore)")
        elif policy in ("always", "unless-stopped"):
            stopping.append(f"{container} stops, and Docker starts it again")
        else:
            stopping.append(f"{container} stops, and stays stopped")
    stopping += [f"{unit} is restarted, as it is part of docker.service" for unit in units]
    if not outlives:
        stopping += [
            f"container {name[:12]} stops (dockerd does not answer)" for name in found.get("unknown", ())
        ]
    return kept, stopping
