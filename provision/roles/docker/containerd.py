"""containerd, through which dockerd starts, stops and reaches containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.probe import words
from provision.resource import Change, Missing, Planned
from provision.resources.service import STARTS, Service, UnitState

CONTAINERD = "containerd.service"

RUNNING = ("active", "activating", "reloading")


@dataclass(frozen=True)
class ContainerdService(Service):
    """containerd.service runs where dockerd does, whose unit starts it; not everywhere is it a unit.

    Without it the containers go on, and one that is stopped then stays down until dockerd is restarted.
    """

    unit: str = CONTAINERD
    kind: ClassVar[str] = "containerd-service"
    shell = ("docker/containerd.sh",)

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:
        """Start it where a start of docker.service does not."""
        if isinstance(state, Missing) or state.load != "loaded" or state.active in RUNNING:
            return None
        if planned.positions([f"service:docker.service:{action}" for action in STARTS]):
            return None
        return Change(
            resource=self.id,
            action="start",
            summary=f"start {self.unit}",
            reason=f"it is {state.active} ({state.sub}), and dockerd reaches containers through it",
            done=words("containerd_is_up", self.unit),
            script=f"{self.starting('start_unit')} && wait_until 30 containers_are_reached",
            after_reboot=True,
        )
