"""The roles, one folder each: ``role.py`` with a settings class and the resources that it declares.

A site's own roles have the same shape and lie in a folder ``roles`` beside its inventory.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from provision.errors import UsageError
from provision.render import add_folder
from provision.role import Role


@functools.cache
def all_roles() -> tuple[Role, ...]:
    """Every role of this folder, in the order of a run."""
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.ispkg]
    return _in_order(importlib.import_module(f"{__name__}.{name}.role").ROLE for name in names)


@functools.cache
def with_site(folder: Path) -> tuple[Role, ...]:
    """The roles of this folder and those of a site's folder, in the order of a run.

    :param folder: holds a folder with ``role.py`` for each role; there need not be one.
    :raises UsageError: if one of them cannot be loaded, or has the name of another role.
    """
    if not folder.is_dir():
        return all_roles()
    add_folder(folder)
    found = {role.name: role for role in all_roles()}
    for file in sorted(folder.glob("*/role.py")):
        role = _site_role(file)
        if role.name in found:
            raise UsageError(
                f"{file}: there is a role {role.name!r} already", hint="give the role another name"
            )
        found[role.name] = role
    return _in_order(found.values())


def choose(roles: Sequence[Role], names: Sequence[str]) -> tuple[Role, ...]:
    """The named roles in the order of a run; all of them if no name is given.

    :raises UsageError: for a name that is no role.
    """
    known = [role.name for role in roles]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no role {name!r}", hint=f"roles: {', '.join(known)}")
    return tuple(role for role in roles if not names or role.name in names)


def _in_order(roles: Iterable[Role]) -> tuple[Role, ...]:
    return tuple(sorted(roles, key=lambda role: (role.order, role.name)))


def _site_role(file: Path) -> Role:
    """The role of a site's ``role.py``, which has to be called as its folder."""
    module = _load(file)
    role = getattr(module, "ROLE", None)
    if not isinstance(role, Role):
        raise UsageError(f"{file}: there is no ROLE in it", hint="ROLE = Role(…); see docs/add-a-role.md")
    if role.name != file.parent.name:
        raise UsageError(
            f"{file}: the role is called {role.name!r}, and its folder {file.parent.name!r}",
            hint="call both the same",
        )
    return role


def _load(file: Path) -> ModuleType:
    name = f"site_roles.{file.parent.name}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"{file}: the role cannot be loaded: {type(error).__name__}: {error} (line {place.lineno})",
            hint="mend it; see docs/add-a-role.md",
        ) from error
    return module
