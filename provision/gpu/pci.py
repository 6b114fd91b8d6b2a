"""Generations of NVIDIA GPUs by PCI device id, and which kernel modules drive them."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Architecture(enum.Enum):
    """A GPU generation; the value is its lowest compute capability times ten."""

    KEPLER = 30
    MAXWELL = 50
    PASCAL = 60
    VOLTA = 70
    TURING = 75
    AMPERE = 80
    ADA = 89
    HOPPER = 90
    BLACKWELL = 100


RANGES = (
    (0x0FC0, 0x133F, Architecture.KEPLER),
    (0x1340, 0x15EF, Architecture.MAXWELL),
    (0x15F0, 0x15FF, Architecture.PASCAL),
    (0x1600, 0x1AFF, Architecture.MAXWELL),
    (0x1B00, 0x1D7F, Architecture.PASCAL),
    (0x1D80, 0x1DFF, Architecture.VOLTA),
    (0x1E00, 0x1FFF, Architecture.TURING),
    (0x2080, 0x20FF, Architecture.AMPERE),
    (0x2180, 0x21FF, Architecture.TURING),
    (0x2200, 0x22FF, Architecture.AMPERE),
    (0x2300, 0x23FF, Architecture.HOPPER),
    (0x2400, 0x25FF, Architecture.AMPERE),
    (0x2600, 0x28FF, Architecture.ADA),
    (0x2900, 0x2FFF, Architecture.BLACKWELL),
    (0x3180, 0x31FF, Architecture.BLACKWELL),
)
"""First and last PCI device id of each block, as the chips are listed in the PCI ID repository (pci.ids)."""

FIRST: Mapping[Architecture | None, int] = {
    Architecture.ADA: 525,
    Architecture.HOPPER: 525,
    Architecture.BLACKWELL: 570,
}
"""First driver branch of a generation, where that is later than the branches which anybody still installs."""

LAST: Mapping[Architecture | None, int] = {
    Architecture.KEPLER: 470,
    Architecture.MAXWELL: 580,
    Architecture.PASCAL: 580,
    Architecture.VOLTA: 580,
}
"""Last branch of a generation (NVIDIA, "UNIX graphics feature deprecation schedule")."""

FIRST_BY_DEVICE = {
    0x230E: 580,  # H20 NVL16
    0x2321: 535,  # H100 NVL
    0x2329: 535,  # H20
    0x232C: 535,  # H20-3e
    0x2331: 520,  # H100 PCIe
    0x2335: 550,  # H200
    0x233A: 535,  # H800 NVL
    0x233B: 565,  # H200 NVL
    0x2342: 535,  # GH200 480GB
    0x2348: 565,  # GH200 144G HBM3e
    0x26B9: 535,  # L40S
    0x26BA: 535,  # L20
    0x27B6: 535,  # L2
    0x2BB5: 575,  # RTX PRO 6000 Blackwell Server Edition
    0x2C3A: 580,  # RTX PRO 4500 Blackwell Server Edition
    0x2E12: 580,  # GB10
    0x3182: 580,  # B300
    0x31C2: 580,  # GB300
}
"""Data centre GPUs that came later (or earlier) than their generation.

The branch of the first release whose table of compatible GPUs has the device: README.md of NVIDIA's
open-gpu-kernel-modules, tags 515.43.04 to 595.45.04.
"""

GRACE_HOPPER = (0x2342, 0x2348)
"""GH200: coherent memory, which only the open modules have."""


def architecture_of(device: int) -> Architecture | None:
    """The generation of a PCI device id, or None if it lies in no block that we know."""
    return next((arch for first, last, arch in RANGES if first <= device <= last), None)


def first_branch(device: int) -> int:
    """The first driver branch that drives a GPU; 0 where none that matters is known."""
    return FIRST_BY_DEVICE.get(device) or FIRST.get(architecture_of(device), 0)


def last_branch(device: int) -> int | None:
    """The last driver branch that drives a GPU; None where it has not ended."""
    return LAST.get(architecture_of(device))


def needs_open(device: int) -> bool:
    """Whether only the open modules drive a GPU.

    That is so for Grace Hopper and from Blackwell on (NVIDIA driver README, "Open Linux Kernel Modules").
    """
    return device in GRACE_HOPPER or architecture_of(device) is Architecture.BLACKWELL


def supports_open(device: int) -> bool:
    """Whether the open modules drive a GPU: they need the GSP, so Turing on (same source).

    A GPU of no known generation is newer than the table.
    """
    architecture = architecture_of(device)
    return architecture is None or architecture.value >= Architecture.TURING.value
