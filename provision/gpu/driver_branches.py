"""Branches of NVIDIA's driver: the CUDA that each came with, and how long it gets fixes; its versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cuda = tuple[int, int]
"""Major and minor version of CUDA."""

NEWEST = 1_000_000
"""Stands for the later numbers of the newest driver of a branch."""

RECOMMENDED = 580
"""The branch to take where nothing speaks for another: a long-term one that runs CUDA up to 13."""


@dataclass(frozen=True)
class Branch:
    """A branch of the driver.

    :ivar cuda: the CUDA version that it came with, and whose features it has all.
    :ivar kind: long-term support, production, or new feature.
    :ivar over: whether NVIDIA fixes nothing in it any more.
    :ivar end: month of its end where NVIDIA names one, ``YYYY-MM``.
    """

    cuda: Cuda
    kind: Literal["LTS", "production", "feature"]
    over: bool = True
    end: str = ""


BRANCHES: Mapping[int, Branch] = {
    450: Branch((11, 0), "LTS", end="2023-07"),
    470: Branch((11, 4), "LTS", end="2024-07"),
    510: Branch((11, 6), "production"),
    515: Branch((11, 7), "production"),
    520: Branch((11, 8), "feature"),
    525: Branch((12, 0), "production"),
    530: Branch((12, 1), "feature"),
    535: Branch((12, 2), "LTS", end="2026-06"),
    545: Branch((12, 3), "feature"),
    550: Branch((12, 4), "production"),
    555: Branch((12, 5), "feature"),
    560: Branch((12, 6), "feature"),
    565: Branch((12, 7), "feature"),
    570: Branch((12, 8), "production", end="2026-02"),
    575: Branch((12, 9), "feature"),
    580: Branch((13, 0), "LTS", over=False, end="2028-06"),
    590: Branch((13, 1), "feature"),
    595: Branch((13, 2), "production", over=False, end="2027-03"),
    610: Branch((13, 3), "feature", end="2026-08"),
    615: Branch((13, 4), "feature", over=False),
    620: Branch((13, 5), "LTS", over=False, end="2029-09"),
}
"""Known on 2026-11-26.

CUDA: Triton's compatibility matrix, which names drivers for CUDA from 12.3 on; 615, 620 are inferred from
their order; 565 and what is before 545 is from memory. Ends of 535, 580, 595, 610 and 620: "Supported
Drivers and CUDA Toolkit Versions" of NVIDIA's data centre drivers 615 and 620; of older branches from memory.
"""

_VERSION = re.compile(r"(?:\d+:)?[rR]?(\d{3})(?:\.(?:\*|(\d+(?:\.\d+)?)))?(?:[-+~].*)?", re.ASCII)


@dataclass(frozen=True)
class Driver:
    """A version of the driver; without further numbers, the newest of its branch."""

    branch: int
    rest: tuple[int, ...] = (NEWEST,)
    text: str = ""

    def __str__(self) -> str:
        return self.text or str(self.branch)

    def at_least(self, branch: int, *rest: int) -> bool:
        """Whether it is this version or a later one."""
        return (self.branch, self.rest) >= (branch, rest)


def read_driver(text: str) -> Driver | None:
    """Read ``580.159.04``, the same as packages have it (``580.159.04-1``), a branch (``580``) or ``580.*``.

    None for anything else.
    """
    found = _VERSION.fullmatch(text.strip())
    if not found:
        return None
    branch, rest = found.groups()
    if not rest:
        return Driver(int(branch))
    return Driver(int(branch), tuple(map(int, rest.split("."))), f"{branch}.{rest}")


def branch_of(cuda: Cuda) -> int | None:
    """The first branch with all features of a CUDA version; None for one that the table does not know."""
    return next((number for number, branch in BRANCHES.items() if branch.cuda == cuda), None)


def lasting(branch: int) -> int | None:
    """The first branch from this one on that gets fixes for more than a few months; None if none does."""
    kept = (n for n, one in BRANCHES.items() if n >= branch and not one.over and one.kind != "feature")
    return next(kept, None)
