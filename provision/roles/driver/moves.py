"""Packages that move, as the kinds of this role listen to them."""

from __future__ import annotations

from collections.abc import Iterable

MOVES = ("install", "upgrade", "downgrade", "repair")
"""The verbs of all changes of a package."""


def moves_of(names: Iterable[str], verbs: Iterable[str] = MOVES) -> tuple[str, ...]:
    """The signals ``package:NAME:VERB`` of these packages."""
    listened = tuple(verbs)
    return tuple(f"package:{name}:{verb}" for name in names for verb in listened)
