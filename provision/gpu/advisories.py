"""Known vulnerabilities of what we install, from NVIDIA's security bulletins."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

from provision.data import remarks, table

ADVISORIES = "gpu/advisories.tsv"
"""The table. ``tools/refresh_advisories.py`` writes it."""

TRITON: Final = "tritonserver"
TOOLKIT: Final = "nvidia-container-toolkit"
DRIVER: Final = "nvidia-driver"

Component = Literal["tritonserver", "nvidia-container-toolkit", "nvidia-driver"]


@dataclass(frozen=True)
class Advisory:
    """A vulnerability of one component. The versions of Triton are the container's releases.

    :ivar since: the first version that has it; empty if all before ``fixed`` have it.
    :ivar fixed: the first version without it; empty if none is known.
    :ivar score: CVSS 3 base score.
    :ivar bulletin: number of NVIDIA's bulletin.
    :ivar date: when it was published, ``YYYY-MM-DD``.
    :ivar affected: the affected versions as the bulletin prints them.
    """

    component: str
    cve: str
    since: str
    fixed: str
    score: float
    bulletin: str
    date: str
    affected: str

    def affects(self, version: str) -> bool:
        """Whether a version has it. NVIDIA's own packages are meant: those of others may have the fix."""
        at = number(version)
        if self.since and at < number(self.since):
            return False
        return not self.fixed or at < number(self.fixed)


@dataclass(frozen=True)
class Known:
    """What is known of a version that has vulnerabilities.

    :ivar found: its vulnerabilities, the worst first.
    :ivar fixed: the first version that has none of them; empty if none is known.
    """

    version: str
    found: tuple[Advisory, ...]
    fixed: str

    def __str__(self) -> str:
        count, worst = len(self.found), self.found[0]
        fixed = f"fixed in {self.fixed}" if self.fixed else "of which not all are fixed yet"
        which = f"{worst.cve} (CVSS {worst.score:g}, NVIDIA's bulletin {worst.bulletin})"
        if count == 1:
            return f"1 known vulnerability, {fixed}: {which}"
        return f"{count} known vulnerabilities, {fixed}; the worst is {which}"


def number(version: str) -> tuple[int, ...]:
    """A version for comparison: its numbers up to a packaging suffix, without an epoch."""
    found = re.match(r"(?:\d+:)?v?r?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


@functools.cache
def advisories() -> tuple[Advisory, ...]:
    """The whole table."""
    names = [field.name for field in fields(Advisory)]
    return tuple(
        Advisory(**{name: float(row[name]) if name == "score" else row[name] for name in names})  # type: ignore[arg-type]
        for row in table(ADVISORIES)
    )


@functools.cache
def known(component: Component, version: str) -> Known | None:
    """What is known of a version; None if it has no known vulnerability."""
    found: dict[str, Advisory] = {}
    for one in sorted(advisories(), key=lambda one: (-one.score, -int(one.bulletin))):
        if one.component == component and one.affects(version):
            found.setdefault(one.cve, one)
    return Known(version, tuple(found.values()), _fixed(tuple(found.values()))) if found else None


def warning(component: Component, version: str) -> str:
    """One sentence on a version with known vulnerabilities; empty for any other, and for ``580.*``."""
    found = known(component, version)
    return f"{component} {version} has {found}" if found else ""


def newest_bulletin() -> str:
    """The date of the newest bulletin that the table was made from."""
    told = re.search(r"Newest bulletin: (\S+)\.", remarks(ADVISORIES))
    return told[1] if told else ""


def _fixed(found: Sequence[Advisory]) -> str:
    fixes = [one.fixed for one in found]
    return max(fixes, key=number) if all(fixes) else ""
