"""Generations of NVIDIA GPUs by PCI device id, and which kernel modules drive them."""

from __future__ import annotations

import enum


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


def architecture_of(device: int) -> Architecture | None:
    """The generation of a PCI device id, or None if it lies in no block that we know."""
    return next((arch for first, last, arch in RANGES if first <= device <= last), None)


def needs_open(architecture: Architecture) -> bool:
    """Whether only the open modules drive it: Blackwell on (NVIDIA driver README, "Open kernel modules")."""
    return architecture is Architecture.BLACKWELL


def supports_open(architecture: Architecture) -> bool:
    """Whether the open kernel modules drive it: they need the GSP, so Turing on (same source)."""
    return architecture.value >= Architecture.TURING.value
