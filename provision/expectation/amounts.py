"""Sizes as people write them: at least so much, or about so much."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import StringConstraints

UNITS = {
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
"""Bytes of each unit."""

ABOUT = 0.03
"""How far from its size a size of about so much may be, as a share: one of 32 memory modules is more."""

SIZE = r"^(at least|about) ([0-9]{1,9}(?:\.[0-9]{1,3})?) (MB|GB|TB|MiB|GiB|TiB)$"

Size = Annotated[str, StringConstraints(pattern=SIZE)]
"""A size in a setting."""


@dataclass(frozen=True)
class Amount:
    """A size that is asked for.

    :ivar least: whether more is welcome.
    :ivar bytes: how much.
    :ivar unit: a key of :data:`UNITS`.
    """

    least: bool
    bytes: float
    unit: str

    def fits(self, size: int) -> bool:
        """Whether a size in bytes is what is asked for."""
        return size >= self.bytes if self.least else abs(size - self.bytes) <= self.bytes * ABOUT

    def shown(self, size: int) -> str:
        """A size in bytes in the unit of this one."""
        return _shown(size, self.unit)


def amount(text: str) -> Amount:
    """The size that a setting of the type :data:`Size` gives."""
    found = re.match(SIZE, text)
    assert found is not None
    return Amount(found[1] == "at least", float(found[2]) * UNITS[found[3]], found[3])


def in_words(size: int, *, binary: bool) -> str:
    """A size in bytes in the largest unit of which there is one, binary or decimal."""
    units = [unit for unit in UNITS if unit.endswith("iB") is binary]
    return _shown(size, next((unit for unit in reversed(units) if size >= UNITS[unit]), units[0]))


def _shown(size: int, unit: str) -> str:
    return f"{size / UNITS[unit]:.2f}".rstrip("0").rstrip(".") + f" {unit}"
