"""Device nodes of the driver, which the kernel does not make by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe
from provision.resource import UNKNOWN, Change, Missing, Planned, Single


@dataclass(frozen=True)
class DeviceNodes(Single[tuple[str, ...] | Missing]):
    """``/dev/nvidiactl``, ``/dev/nvidia-uvm``, ``/dev/nvidia-uvm-tools``, and one for each GPU.

    Programs as root make them when they start; those of other users, and containers, find nothing.
    """

    kind: ClassVar[str] = "device-nodes"
    shell = ("driver/make_nodes.sh",)

    def question(self) -> Probe:
        """Look for them, if the driver is loaded."""
        return Probe("device-nodes", "node_states", ("driver/nodes.sh",), in_place=True)

    def read(self, answer: Output) -> tuple[str, ...] | Missing:
        """Names of those that are missing; unknown until the driver is loaded."""
        names = tuple(dict.fromkeys(answer.out.split()))
        return UNKNOWN if names == ("-",) else names

    def bare(self) -> Missing:
        return UNKNOWN

    def change(self, state: tuple[str, ...] | Missing, planned: Planned) -> Change | None:
        """Make them, also after the module is loaded anew."""
        modules = planned.positions(("module:nvidia", "module:nvidia-uvm"))
        if isinstance(state, Missing):
            reason = "the driver is not loaded yet"
        elif state:
            reason = f"missing or out of date: {' '.join(f'/dev/{name}' for name in state)}"
        elif modules:
            reason = f"after {planned.resources(modules)}"
        else:
            return None
        return Change(
            resource=self.id,
            action="make",
            summary="make the driver's device nodes",
            reason=reason,
            sign="+",
            done="nodes_are_there",
            script="make_nodes",
            after_reboot=True,
        )
