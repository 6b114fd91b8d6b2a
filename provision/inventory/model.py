"""Hosts and groups as values: what an inventory says once all of its sources are read."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provision.errors import Location
from provision.inventory.pattern import select
from provision.inventory.values import Item, Value, overlaid, plain
from provision.secrecy import masked


@dataclass(frozen=True)
class Host:
    """One machine.

    :ivar name: its name in the inventory; ``ansible_host`` in the vars may say where it really is.
    :ivar groups: every group it is in, directly or through a child group, sorted, without ``all``; this is
        Ansible's ``group_names``.
    :ivar vars: its variables as Ansible merges them: the nearest value of each replaces all others.
    :ivar layers: the variables of its groups and its own with their places, the nearest last. A host that is
        made without them has its variables only.
    """

    name: str
    groups: tuple[str, ...] = ()
    vars: Mapping[str, Value] = field(default_factory=dict, hash=False)
    layers: Sequence[Mapping[str, Item]] = field(default=(), repr=False, compare=False)
    place: Location = field(default=Location("inventory"), repr=False, compare=False)

    def where(self, *path: str | int) -> Location | None:
        """Where the nearest value at ``path`` stands: ``host.where("triton", "instances", "main", "image")``.

        Without a path, where the host is first named. None where there is no such value.
        """
        if not path:
            return self.place
        items = (layer[str(path[0])] for layer in reversed(self.layers) if path[0] in layer)
        return next(filter(None, (item.at(*path[1:]) for item in items)), None)

    def settings(self, key: str) -> Value:
        """A variable as the settings of a role: mappings of all groups are merged, the nearest value wins.

        Lists and single values are replaced. None where there is no such variable.
        """
        values = [layer[key].value for layer in self.layers if key in layer]
        return functools.reduce(overlaid, values) if values else self.vars.get(key)


@dataclass(frozen=True)
class Group:
    """A named set of hosts and groups.

    :ivar hosts: names of the hosts listed in the group itself.
    :ivar children: names of the groups inside of it, in the order written.
    """

    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """All hosts and groups, in the order in which the sources name them.

    :ivar warnings: what Ansible would warn of: parts of the sources that have no effect.
    """

    hosts: Mapping[str, Host]
    groups: Mapping[str, Group]
    warnings: tuple[str, ...] = ()

    @functools.cached_property
    def members(self) -> Mapping[str, Sequence[str]]:
        """Group → names of its hosts and of those of all groups below it, breadth first, each once."""
        return {name: self._walk(name) for name in self.groups}

    def _walk(self, start: str) -> tuple[str, ...]:
        names: dict[str, None] = {}
        seen = {start}
        level = [start]
        while level:
            below: list[str] = []
            for name in level:
                group = self.groups[name]
                names.update(dict.fromkeys(group.hosts))
                below += [child for child in group.children if child not in seen]
                seen.update(group.children)
            level = below
        return tuple(names)

    def select(self, pattern: str) -> tuple[Host, ...]:
        """Return the hosts that an Ansible host pattern names, in Ansible's order.

        :raises UsageError: the pattern is malformed, holds a name that nobody has, or leaves no host.
        """
        return tuple(self.hosts[name] for name in select(pattern, self.hosts, self.members))

    def document(self, hosts: Iterable[Host], *, secrets: bool = False) -> dict[str, Any]:
        """The JSON document of ``inv inventory --json``; without ``secrets`` it hides them."""
        shown = plain if secrets else (lambda values: masked(plain(values)))
        return {
            "schema": 1,
            "hosts": {host.name: {"groups": list(host.groups), "vars": shown(host.vars)} for host in hosts},
        }

    def graph(self) -> str:
        """The tree of groups and hosts, drawn as ``ansible-inventory --graph`` draws it."""
        return "\n".join(self._branch("all", 0))

    def _branch(self, name: str, depth: int) -> list[str]:
        group = self.groups[name]
        lines = [_leaf(f"@{name}:", depth)]
        for child in group.children:
            lines += self._branch(child, depth + 1)
        if name != "all":
            lines += [_leaf(host, depth + 1) for host in group.hosts]
        return lines


def _leaf(text: str, depth: int) -> str:
    return "  |" * depth + f"--{text}" if depth else text
