"""Persistence mode of the GPUs, which nvidia-persistenced turns on when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.probe import words
from provision.resource import Change, Planned
from provision.resources.driver_says import OFF, DriverSays, OfDriver
from provision.resources.service import STARTS

UNIT = "nvidia-persistenced.service"


@dataclass(frozen=True)
class PersistenceMode(OfDriver[tuple[str, ...]]):
    """Persistence mode is on for every GPU. The state is the indexes of those for which it is off."""

    kind: ClassVar[str] = "persistence-mode"
    shell = ("driver/persistence.sh",)

    def seen(self, says: DriverSays) -> tuple[str, ...]:
        return tuple(gpu.index for gpu in says.gpus if gpu.persistence == OFF)

    def change(self, state: tuple[str, ...], planned: Planned) -> Change | None:
        """Restart the daemon, unless the plan starts it anyway."""
        if not state or planned.positions([f"service:{UNIT}:{action}" for action in STARTS]):
            return None
        return Change(
            resource=self.id,
            action="restart",
            summary=f"restart {UNIT}",
            reason=f"persistence mode is off for GPU {', '.join(state)}",
            done="persistence_is_on",
            script=f"{words('restart_unit', UNIT, '60')} && await_persistence",
            after_reboot=True,
        )
