"""The modules that roles add to testinfra's host: ``testinfra.py`` in a role's folder."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import ModuleType

from testinfra import modules as own
from testinfra.modules.base import Module

from provision.errors import UsageError
from provision.role import Role


def modules_of(roles: Iterable[Role]) -> Mapping[str, type[Module]]:
    """Every module of these roles by the name that tests use: ``DockerEngine`` is ``docker_engine``.

    :raises UsageError: if two have one name, or a file cannot be loaded.
    """
    found: dict[str, type[Module]] = {}
    for role in roles:
        file = _file_of(role)
        for kind in _kinds(file) if file else ():
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
            if name in found or name in own.modules:
                raise UsageError(
                    f"{role.name}/testinfra.py: there is another module {name!r} on testinfra's host",
                    hint="give the class another name",
                )
            found[name] = kind
    return found


def _file_of(role: Role) -> ModuleType | None:
    package = role.settings.__module__.rpartition(".")[0]
    try:
        name = f"{package}.testinfra"
        return importlib.import_module(name) if package and find_spec(name) else None
    except Exception as error:
        raise UsageError(
            f"{role.name}/testinfra.py cannot be loaded: {type(error).__name__}: {error}", hint="mend it"
        ) from error


def _kinds(file: ModuleType) -> list[type[Module]]:
    return [
        kind
        for kind in vars(file).values()
        if inspect.isclass(kind) and issubclass(kind, Module) and kind.__module__ == file.__name__
    ]
