"""The roles, one file each: a settings class, whose defaults are its documentation, and its resources."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Sequence

from provision.errors import UsageError
from provision.roles.base import Role


@functools.cache
def all_roles() -> tuple[Role, ...]:
    """Every role of this folder, in the order of a run."""
    names = (info.name for info in pkgutil.iter_modules(__path__))
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names if name != "base")
    found: list[Role] = [module.ROLE for module in modules if hasattr(module, "ROLE")]
    return tuple(sorted(found, key=lambda role: role.order))


def choose(names: Sequence[str]) -> tuple[Role, ...]:
    """The named roles in the order of a run; all of them if no name is given.

    :raises UsageError: for a name that is no role.
    """
    roles = all_roles()
    known = [role.name for role in roles]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no role {name!r}", hint=f"roles: {', '.join(known)}")
    return tuple(role for role in roles if not names or role.name in names)
