"""Hints that fit a host: what names a role that the host does not have says so first."""

from __future__ import annotations

import re
from collections.abc import Container


def fitting(hint: str | None, roles: Container[str]) -> str | None:
    """``hint``, and before it what a host with these roles lacks for it. ``{host}`` stands for the host."""
    named = re.search(r"\binv provision [^;:]*--roles ([\w-]+(?:,[\w-]+)*)", hint or "")
    missing = [name for name in named[1].split(",") if name not in roles] if named else []
    if not missing:
        return hint
    lacks = f"role{'' if len(missing) == 1 else 's'} {' and '.join(missing)}"
    return f"{{host}} has no {lacks}: give it settings in the inventory; then {hint}"
