"""Where the files are that run with the package: in a clone beside it, in an installed package inside it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_CLONE = {"suite": "tests/verify", "role_suite": "tests/roles"}

CLONE = None if (_PACKAGE / "templates").is_dir() else _PACKAGE.parent
"""The clone that the package runs from, an editable install too; None where it is installed from a wheel."""


def data(name: str) -> Path:
    """The folder ``templates``; ``suite``: the tests that verify hosts; ``role_suite``: those of roles."""
    return _PACKAGE / name if CLONE is None else CLONE / _IN_CLONE.get(name, name)
