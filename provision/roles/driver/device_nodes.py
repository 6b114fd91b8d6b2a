"""Device nodes of the driver, which the kernel does not make by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe
from provision.resource import UNKNOWN, Change, Missing, Planned, Resource

MISSING_NODES = """missing_nodes() {
  nodes='nvidiactl nvidia-uvm nvidia-uvm-tools'
  for gpu in /proc/driver/nvidia/gpus/*/information; do
    [ ! -r "$gpu" ] || while read -r device minor number; do
      if [ "$device $minor" = "Device Minor:" ]; then nodes="$nodes nvidia$number"; fi
    done <"$gpu"
  done
  for node in $nodes; do
    if [ ! -c "/dev/$node" ]; then echo "$node"; fi
  done
  while read -r major name; do
    if [ "$name" = nvidia-uvm ] && [ -c /dev/nvidia-uvm ] &&
      [ "$((0x$(stat -c %t /dev/nvidia-uvm)))" != "$major" ]; then echo nvidia-uvm; fi
  done </proc/devices
}
"""
"""A function of sh that prints the names of missing nodes.

The major number of nvidia-uvm is given out anew when the module is loaded, and an old node stays what it was.
"""


@dataclass(frozen=True)
class DeviceNodes(Resource):
    """``/dev/nvidiactl``, ``/dev/nvidia-uvm``, ``/dev/nvidia-uvm-tools``, and one for each GPU.

    Programs as root make them when they start; those of other users, and containers, find nothing.
    """

    kind: ClassVar[str] = "device-nodes"

    @property
    def id(self) -> str:
        """A host has one set."""
        return "device-nodes"

    @classmethod
    def probe(cls, resources: Sequence[DeviceNodes]) -> Probe:  # noqa: ARG003
        """Look for them, if the driver is loaded. Nothing here starts a program that would make them."""
        return Probe(
            "device-nodes",
            f"{MISSING_NODES}if [ -e /proc/driver/nvidia/version ]; then missing_nodes; else echo -; fi",
        )

    @classmethod
    def states(
        cls, resources: Sequence[DeviceNodes], answer: Output
    ) -> Mapping[str, tuple[str, ...] | Missing]:
        """Names of those that are missing; unknown until the driver is loaded."""
        found = tuple(dict.fromkeys(answer.out.split()))
        return dict.fromkeys((r.id for r in resources), UNKNOWN if found == ("-",) else found)

    def change(self, state: tuple[str, ...] | Missing, planned: Planned) -> Change | None:
        """Make them, also after the module is loaded anew."""
        modules = planned.positions(("module:nvidia", "module:nvidia-uvm"))
        if isinstance(state, Missing):
            reason = "the driver is not loaded yet"
        elif state:
            reason = f"missing or out of date: {' '.join(f'/dev/{name}' for name in state)}"
        elif modules:
            reason = f"after {', '.join(dict.fromkeys(planned.at(i).resource for i in modules))}"
        else:
            return None
        return Change(
            resource=self.id,
            action="make",
            summary="make the driver's device nodes",
            reason=reason,
            done=f"{MISSING_NODES}nodes_are_there",
            script="make_nodes",
        )
