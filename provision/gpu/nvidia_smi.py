"""What nvidia-smi says, asked with a time limit, and read. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from provision.probe import Output, Probe

GPUS = Probe(
    "gpus",
    "smi --query-gpu=index,uuid,pci.bus_id,driver_version,persistence_mode --format=csv,noheader",
    ("shell/nvidia_smi.sh",),
)
"""One line a GPU. The exit code is 0 with "No devices found.", so only the lines count."""

UUID = re.compile(r"\b(GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


@dataclass(frozen=True)
class Card:
    """A GPU as the driver shows it.

    :ivar address: ``DOMAIN:BUS:DEVICE.FUNCTION``, as sysfs writes it.
    """

    index: int
    uuid: str
    address: str
    driver: str
    persistence: str


def cards(output: Output) -> list[Card]:
    """Read the answer to :data:`GPUS`; lines that are not about a GPU are left out."""
    found = []
    for line in output.out.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5 and fields[0].isdigit() and fields[1].startswith("GPU-"):
            found.append(Card(int(fields[0]), fields[1], sysfs_address(fields[2]), fields[3], fields[4]))
    return found


def sysfs_address(bus_id: str) -> str:
    """nvidia-smi's ``00000000:18:00.0`` as sysfs has it: ``0000:18:00.0``."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}" if rest else bus_id.lower()


def uuids(text: str) -> list[str]:
    """The UUIDs of the GPUs in the output of ``nvidia-smi -L``, in its order; MIG devices are left out."""
    return UUID.findall(text)


def selected(selection: str | Sequence[int | str], there: Sequence[Card]) -> tuple[list[str], list[str]]:
    """UUIDs of the GPUs that a selection names, and the names that no GPU has.

    :param selection: ``all``, ``none``, or indexes and UUIDs.
    """
    if isinstance(selection, str):
        return ([card.uuid for card in there] if selection == "all" else []), []
    names = {str(card.index): card.uuid for card in there} | {card.uuid: card.uuid for card in there}
    wanted = [str(name) for name in selection]
    return [names[name] for name in wanted if name in names], [name for name in wanted if name not in names]
