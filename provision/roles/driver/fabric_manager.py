"""The Fabric Manager: where GPUs are joined by NVSwitches, and then in exactly the driver's version.

It refuses to work with a driver of any other version, patch level included (NVIDIA Fabric Manager User Guide,
"Installation"). Without it CUDA ends with error 802, "system not yet initialized", though nvidia-smi is fine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.facts import Family
from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Single
from provision.resources.packages.sets import moves_of


@dataclass(frozen=True)
class FabricManager(Single[Mapping[str, str]]):
    """The Fabric Manager's version. It is installed with the driver's packages; here it is made equal.

    :ivar package: its package; empty where the host has no NVSwitch, or its owner looks after it.
    :ivar proof: the package whose version is the driver's.
    :ivar hold: the package is held, by us.
    """

    family: Family
    package: str
    proof: str
    hold: bool = True
    kind: ClassVar[str] = "fabric-manager"
    shell = ("driver/match_fabric.sh",)

    def question(self) -> Probe:
        """Ask for the versions of the driver and of all Fabric Managers, where there is any."""
        script = f"fabric_versions_{self.family} {quote(self.proof)}"
        return Probe("fabric-manager", script, ("driver/fabric.sh",), in_place=True)

    def read(self, answer: Output) -> Mapping[str, str]:
        """Package → NVIDIA's version: of :attr:`proof`, and of every Fabric Manager that is installed."""
        rows = (line.split("\t") for line in answer.out.splitlines())
        return {name: upstream(version) for name, version, *status in rows if status in ([], ["installed"])}

    def bare(self) -> Mapping[str, str]:
        return {}

    def change(self, state: Mapping[str, str], planned: Planned) -> Change | None:
        """Make the version equal where it is not, or where it may not be after what is planned."""
        if not self.package:
            return None
        names = (self.package, self.proof)
        moves = planned.positions(moves_of(names, ("install", "upgrade", "downgrade")))
        now, driver = state.get(self.package), state.get(self.proof)
        if moves:
            reason = "driver or Fabric Manager change"
        elif not now:
            reason = f"{self.package} is not installed"
        elif now != driver:
            reason = f"{self.package} is at {now}, the driver at {driver or 'no version'}"
        else:
            return None
        hold = " hold" if self.hold else ""
        return Change(
            resource=self.id,
            action="match",
            summary=f"{self.package} in exactly the driver's version",
            reason=reason,
            done=f"fabric_manager_matches {words(*names)}",
            script=f"match_fabric_manager {words(*names)}{hold}",
        )

    def notes(self, state: Mapping[str, str], planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """A Fabric Manager that has nothing to manage is somebody else's, and is left."""
        managers = sorted(state.keys() - {self.proof})
        if self.package or not managers:
            return ()
        return (
            f"{', '.join(managers)} is installed, and no NVSwitch is managed here:"
            " it has nothing to do, and is left as it is",
        )


def upstream(version: str) -> str:
    """NVIDIA's version in a package's: ``580.159.04`` of ``1:580.159.04-1ubuntu1``."""
    return version.rpartition(":")[2].partition("-")[0]
