"""The driver answers for the GPUs of instances: without it none that stops starts again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.errors import Refusal
from provision.resource import Change, Planned
from provision.resources.driver_says import DriverSays, OfDriver


@dataclass(frozen=True)
class OnGpus:
    """An instance with GPUs.

    :ivar selection: its GPUs, as its gate takes them.
    :ivar stopped_by: ids of the changes that stop and start it where it is up.
    """

    unit: str
    selection: str
    stopped_by: tuple[str, ...]


@dataclass(frozen=True)
class DriverAnswers(OfDriver[DriverSays]):
    """The driver answers, and shows the GPUs of all instances, as their gates will ask when they start."""

    instances: tuple[OnGpus, ...]
    kind: ClassVar[str] = "driver-answers"

    def seen(self, says: DriverSays) -> DriverSays:
        return says

    def change(self, state: DriverSays, planned: Planned) -> Change | None:
        """None.

        :raises Refusal: if the plan stops an instance that would not start again.
        """
        for one, why, hint in self._faults(state, planned):
            if planned.positions(one.stopped_by):
                raise Refusal(f"{one.unit} cannot start: {why}", hint=hint)
        return None

    def notes(self, state: DriverSays, planned: Planned) -> Sequence[str]:
        """What the next start of instances would meet."""
        told: dict[str, list[str]] = {}
        for one, why, hint in self._faults(state, planned):
            told.setdefault(f"the next start fails: {why} ({hint})", []).append(one.unit)
        return [f"{', '.join(units)}: {why}" for why, units in told.items()]

    def _faults(self, says: DriverSays, planned: Planned) -> Iterator[tuple[OnGpus, str, str]]:
        """Instances that could not start, why, and what to do; none where the plan changes the driver."""
        if any(change.role == "driver" for change in planned.changes):
            return
        there = {name for gpu in says.gpus for name in (gpu.index, gpu.uuid)}
        for one in self.instances:
            named = [] if one.selection == "all" else one.selection.split(",")
            absent = [name for name in named if there and name not in there and not name.startswith("MIG-")]
            if says.fault:
                yield one, f"the NVIDIA driver does not answer ({says.fault})", says.hint
            elif absent:
                why = f"GPU {absent[0]} is not among the GPUs of this host"
                yield one, why, "compare gpus: with nvidia-smi -L on the host"
