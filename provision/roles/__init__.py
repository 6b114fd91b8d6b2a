"""The roles, one folder each: ``role.py`` with a settings class and the resources that it declares.

A site's own roles have the same shape and lie in a folder ``roles`` beside its inventory.
"""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from provision.data import data
from provision.errors import UsageError
from provision.render import add_folder
from provision.role import Role, Settings


@functools.cache
def all_roles() -> tuple[Role, ...]:
    """Every role of this folder, in the order of a run."""
    files = (file for folder in __path__ for file in sorted(Path(folder).glob("*/role.py")))
    return _in_order(importlib.import_module(f"{__name__}.{file.parent.name}.role").ROLE for file in files)


@functools.cache
def with_site(folder: Path) -> tuple[Role, ...]:
    """The roles of this folder and those of a site's folder, in the order of a run.

    :param folder: holds a folder with ``role.py`` for each role; there need not be one.
    :raises UsageError: if one of them cannot be loaded, or has the name of another role.
    """
    try:
        files = sorted(file for inside in folder.iterdir() if (file := inside / "role.py").exists())
    except (FileNotFoundError, NotADirectoryError):
        return all_roles()
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}",
            hint="a site's own roles are in roles/ beside the inventory: check owner and mode of the folders",
        ) from error
    add_folder(folder)
    found = {role.name: role for role in all_roles()}
    for file in files:
        role = _site_role(file)
        if role.name in found or (data("templates") / role.name).is_dir():
            raise UsageError(
                f"{file}: the name {role.name!r} is taken by the product", hint="give the role another name"
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
    if not (isinstance(role.settings, type) and issubclass(role.settings, Settings)):
        raise UsageError(
            f"{file}: the role's settings must be a class", hint="derive it from provision.role.Settings"
        )
    if role.name != file.parent.name:
        raise UsageError(
            f"{file}: the role is called {role.name!r}, and its folder {file.parent.name!r}",
            hint="call both the same",
        )
    return role


def _load(file: Path) -> ModuleType:
    """Import a site's ``role.py`` as ``site_roles.NAME.role``, so that it can import what lies beside it."""
    package = f"site_roles.{file.parent.name}"
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
    for name, folders in (("site_roles", []), (package, [str(file.parent)])):
        parent = ModuleType(name)
        parent.__path__ = folders
        sys.modules[name] = parent
    try:
        return importlib.import_module(f"{package}.role")
    except (Exception, SystemExit) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(
            f"{_place(error, file)}: the role cannot be loaded: {type(error).__name__}: {said}",
            hint="mend it; see docs/add-a-role.md",
        ) from error


def _place(error: BaseException, file: Path) -> str:
    """The last line of the site's folder that ran, or the line that Python cannot read."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent == file.parent
    ]
    return lines[-1] if lines else str(file)
