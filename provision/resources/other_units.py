"""Units that an earlier run wrote for something that the settings no longer name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Resource
from provision.resources.file import gone
from provision.shell import constant

UNITS = constant("shell/own_units.sh", "unit_folder")
"""Folder of units that are not from packages."""


@dataclass(frozen=True)
class NoOtherUnits(Resource[tuple[str, ...]]):
    """Of the units ``PREFIX@…`` that were written by us, only these are there.

    :ivar keep: names of the units that stay.
    :ivar beside: files that go with a unit; ``{}`` stands for its instance.
    :ivar why: the reason, where it is not that the settings no longer name them.
    """

    prefix: str
    keep: tuple[str, ...]
    beside: tuple[str, ...] = ()
    why: str = ""
    kind: ClassVar[str] = "no-other-units"
    shell = ("shell/units.sh",)

    @property
    def id(self) -> str:
        return f"no-other-units:{self.prefix}"

    @classmethod
    def probe(cls, resources: Sequence[NoOtherUnits]) -> Probe:
        """List the units that carry our mark."""
        script = words("own_units", *(r.prefix for r in resources))
        return Probe("no-other-units", script, ("shell/own_units.sh",), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[NoOtherUnits], answer: Output) -> Mapping[str, tuple[str, ...]]:
        """The units of ours that are there and not declared, by id."""
        found = [line.rpartition("/")[2] for line in answer.out.splitlines()]
        return {
            r.id: tuple(unit for unit in found if unit.startswith(f"{r.prefix}@") and unit not in r.keep)
            for r in resources
        }

    def bare(self) -> tuple[str, ...]:
        return ()

    def change(self, state: tuple[str, ...], planned: Planned) -> Change | None:  # noqa: ARG002
        """Stop and remove them; their files stay in the backups."""
        files = [path for unit in state for path in (f"{UNITS}/{unit}", *self._beside(unit))]
        if not state:
            return None
        return Change(
            resource=self.id,
            action="remove",
            summary=f"stop and remove {', '.join(state)} (kept in the backups)",
            reason=self.why or f"the settings no longer name {'it' if len(state) == 1 else 'them'}",
            sign="-",
            signals=tuple(map(gone, files)),
            reloads_systemd=True,
            done=" && ".join(f"[ ! -e {quote(f'{UNITS}/{unit}')} ]" for unit in state),
            script=" && ".join(
                words("retire_unit", f"{UNITS}/{unit}", *self._beside(unit)) for unit in state
            ),
            preview=Probe("", f"systemctl show -p Id,ActiveState -- {words(*state)}"),
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Say which of the units are running."""
        blocks = (
            dict(re.findall(r"^(\w+)=(.*)$", block, re.MULTILINE)) for block in answer.out.split("\n\n")
        )
        up = sorted(block["Id"] for block in blocks if block.get("ActiveState") == "active")
        return replace(change, impact=tuple(f"{unit} is running and will be stopped" for unit in up))

    def _beside(self, unit: str) -> list[str]:
        instance = unit.removeprefix(f"{self.prefix}@").removesuffix(".service")
        return [file.format(instance) for file in self.beside]
