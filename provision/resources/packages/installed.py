"""Installed packages as verification sees them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from provision.finding import Missing

INSTALLED = "shell/installed.sh"
"""File of the functions that ask for them."""


@dataclass(frozen=True)
class Installed:
    """A package. ``status`` is ``installed`` unless something was interrupted."""

    version: str
    status: str = "installed"
    held: bool = False


def installed(text: str) -> dict[str, Installed]:
    """Package by name, from what ``installed_packages`` prints."""
    rows = [row for row in map(str.split, text.splitlines()) if len(row) >= 3]
    locked = {row[1] for row in rows if row[2] == "locked"}
    return {
        row[1]: Installed(row[2], row[0], held=row[1] in locked or row[3:] == ["hold"])
        for row in rows
        if row[0] not in ("not-installed", "config-files") and row[2] != "locked"
    }


def require(base: str, there: Mapping[str, Installed], wanted: Iterable[str], hint: str) -> None:
    """See that all wanted packages are there.

    :raises Missing: if one is not, or only in part.
    """
    if missing := [name for name in wanted if name not in there]:
        raise Missing(base, f"not installed: {', '.join(missing)}", hint)
    if half := [name for name in wanted if there[name].status != "installed"]:
        raise Missing(
            base, f"{half[0]} is {there[half[0]].status}, as its installation was interrupted", hint
        )
