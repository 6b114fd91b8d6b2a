"""Three versions of daemon.json made one: what is there, what we set earlier, and what is declared now.

What we set is remembered, each key with what was there before. So a key that is no longer declared goes, or
gets back the value that it had; and a value that its owner changed after us stays as it is.

Objects are merged key by key. Everything else, lists too, is replaced as a whole: two lists of registries
cannot be told into whose entries are whose once they are one list. The list that was there is remembered.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provision.resource import ABSENT
from provision.roles.docker.text import equal, literal

Path = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A key that we set.

    :ivar path: the way to it, from the top.
    :ivar ours: the value that we gave it; ``{}`` for an object that we made to put keys into.
    :ivar before: the value that it had, or ABSENT, which JSON's null is not.
    """

    path: Path
    ours: Any
    before: Any = ABSENT


@dataclass(frozen=True)
class Merged:
    """A document with the declared keys in it, and which of them are there because of us."""

    document: dict[str, Any]
    settings: tuple[Setting, ...]


def merge(
    existing: Mapping[str, Any],
    earlier: Sequence[Setting],
    declared: Mapping[str, Any],
    initial: Mapping[Path, Mapping[str, Any]] | None = None,
) -> Merged:
    """Take back what ``earlier`` says that we set, then set what is declared.

    Keys keep their place, new ones come last, and what nobody names stays as it is.

    :param initial: objects by the way to them, to set only where the owner has nothing.
    """
    owners = without(existing, earlier)
    document = copy.deepcopy(owners)
    settings: dict[Path, Setting] = {}
    missing = [
        (path, literal(value)) for path, value in (initial or {}).items() if at(owners, path) is ABSENT
    ]
    first = [leaf for path, value in missing for leaf in leaves(value, path)]
    for path, value in [*first, *leaves(literal(declared))]:
        for depth in range(1, len(path)):
            _put(document, path[:depth], {}, settings)
        _put(document, path, value, settings)
    found = [replace(s, before=at(owners, s.path)) for s in settings.values()]
    as_declared = {key: document[key] for key in declared} | document
    return Merged(_arranged(as_declared, existing), tuple(s for s in found if not equal(s.before, s.ours)))


def without(existing: Mapping[str, Any], earlier: Sequence[Setting]) -> dict[str, Any]:
    """The document as its owner has it: what we set is gone, unless they changed it since."""
    document: dict[str, Any] = copy.deepcopy(dict(existing))
    changed: set[Path] = set()
    for setting in reversed(earlier):
        parent = at(document, setting.path[:-1])
        key = setting.path[-1]
        # An object that we made for our keys is theirs as soon as they changed one of them.
        if setting.path in changed or not equal(at(parent, (key,)), setting.ours):
            changed |= {setting.path[:depth] for depth in range(1, len(setting.path))}
        elif setting.before is ABSENT:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(setting.before)
    return document


def leaves(declared: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no object with keys, and the way to it."""
    for key, value in declared.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def at(document: Any, path: Path) -> Any:
    """The value at a place of a document, or ABSENT."""
    for key in path:
        if not isinstance(document, Mapping) or key not in document:
            return ABSENT
        document = document[key]
    return document


def _put(document: dict[str, Any], path: Path, value: Any, settings: dict[Path, Setting]) -> None:
    """Give a key its value, and note it; an object stays where one is declared."""
    before = at(document, path)
    if equal(before, value) or (value == {} and isinstance(before, dict)):
        return
    at(document, path[:-1])[path[-1]] = copy.deepcopy(value)
    # What was set inside of a value that is replaced is gone with it.
    for inner in [known for known in settings if known[: len(path)] == path]:
        del settings[inner]
    settings[path] = Setting(path, value)


def _arranged(value: Any, like: Any) -> Any:
    """The value with the keys of its objects in the order of ``like``, then those that are not there."""
    if not isinstance(value, dict) or not isinstance(like, Mapping):
        return value
    order = [key for key in like if key in value] + [key for key in value if key not in like]
    return {key: _arranged(value[key], like.get(key)) for key in order}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Keys of the top level that were set or changed, and those that went."""
    changed = [key for key in new if key not in old or not equal(old[key], new[key])]
    return changed, [key for key in old if key not in new]
