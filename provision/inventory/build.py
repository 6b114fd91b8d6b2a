"""Sources → Inventory, by the rules of ansible-core 2.19 (inventory/data.py, vars/manager.py).

Nothing here opens a file: ``provision.sources`` reads, and hands over texts and data in their order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from provision.errors import InventoryError, Location
from provision.inventory.addresses import check_name, expand, split_port
from provision.inventory.document import Document, Item, Value, is_string_key, of_data, parse
from provision.inventory.model import Group, Host, Inventory

# What Ansible sets itself and hides from users (INTERNAL_STATIC_VARS in ansible/constants.py).
_MAGIC = frozenset(
    {
        "ansible_async_path",
        "ansible_collection_name",
        "ansible_config_file",
        "ansible_dependent_role_names",
        "ansible_diff_mode",
        "ansible_facts",
        "ansible_forks",
        "ansible_inventory_sources",
        "ansible_limit",
        "ansible_play_batch",
        "ansible_play_hosts",
        "ansible_play_hosts_all",
        "ansible_play_role_names",
        "ansible_playbook_python",
        "ansible_role_name",
        "ansible_role_names",
        "ansible_run_tags",
        "ansible_skip_tags",
        "ansible_verbosity",
        "ansible_version",
        "groups",
        "group_names",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "play_hosts",
        "playbook_dir",
        "role_name",
        "role_names",
        "role_path",
        "role_uuid",
    }
)
_SECTIONS = ("vars", "children", "hosts")

Vars = dict[str, Item]


@dataclass
class _Group:
    name: str
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    vars: Vars = field(default_factory=dict)
    priority: int = 1


@dataclass
class _Host:
    name: str
    place: Location
    vars: Vars = field(default_factory=dict)


@dataclass
class Layer:
    """The variables of one ``group_vars`` and ``host_vars`` pair, by the name of the group or host."""

    groups: dict[str, Vars] = field(default_factory=dict)
    hosts: dict[str, Vars] = field(default_factory=dict)


class Builder:
    """Collects what sources say, in their order, and makes an :class:`Inventory` of it."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._groups: dict[str, _Group] = {}
        self._hosts: dict[str, _Host] = {}
        for name in ("all", "ungrouped"):
            self._groups[name] = _Group(name)
        self._link("all", "ungrouped", Location(""))

    def add_yaml(self, text: str, path: str) -> None:
        """Take an inventory in Ansible's YAML format (JSON is YAML).

        :raises InventoryError: it is not YAML, or not of that structure.
        """
        document = parse(text, path)
        if document.encrypted:
            raise _refusal(document.root, "the inventory is encrypted with ansible-vault", "decrypt it first")
        self.add_document(document)

    def add_document(self, document: Document) -> None:
        """Take a parsed inventory in Ansible's YAML format.

        :raises InventoryError: it is not of that structure.
        """
        root = document.root
        if not root.value:
            raise _refusal(root, "the inventory is empty", "write at least 'all: {hosts: {NAME: }}'")
        if not isinstance(root.value, dict):
            raise _refusal(
                root, f"an inventory is a mapping of groups, not {_kind(root.value)}", "start with 'all:'"
            )
        for name, item in root.items():
            if isinstance(item.value, dict | None):
                self._read_group(name, item)
            else:
                self._warn(item, f"{name!r} is {_kind(item.value)}, not a group: ignored")

    def add_names(self, names: Iterable[str], path: str) -> None:
        """Take the hosts of a command line such as ``node1,node2:2222,``.

        :raises InventoryError: a name that no host can have.
        """
        for text in names:
            name, port = split_port(text) or (text, None)
            self._add_host(name, "ungrouped", port, Item(None, Document(path)))

    def add_listing(self, data: object, path: str) -> set[str]:
        """Take what an executable source prints for ``--list``, and return the names of its hosts.

        The caller gives the variables of these to :meth:`add_host_vars` where the listing has no ``_meta``.

        :raises InventoryError: it is not of that structure.
        """
        root = of_data(data, path).root
        if not isinstance(root.value, dict):
            raise _refusal(
                root, f"the listing is {_kind(root.value)}, not a mapping of groups", "print a JSON object"
            )
        listed: set[str] = set()
        meta: Item | None = None
        for name, item in root.items():
            if name == "_meta":
                meta = dict(item.items()).get("hostvars", Item(None, item.document))
            else:
                listed.update(self._read_listed_group(name, item))
        if meta is not None:
            if not isinstance(meta.value, dict):
                raise _refusal(
                    meta, f"_meta.hostvars is {_kind(meta.value)}, not a mapping", "print it as a JSON object"
                )
            for name, item in meta.items():
                if name in listed:
                    self.add_host_vars(name, item)
        return listed

    def add_host_vars(self, name: str, item: Item) -> None:
        """Set variables of a host that is known already, as a source's inline variables.

        :raises InventoryError: ``item`` is not a mapping.
        """
        if not isinstance(item.value or {}, dict):
            raise _refusal(
                item,
                f"the variables of host {name!r} are {_kind(item.value)}, not a mapping",
                "write NAME: VALUE",
            )
        for key, value in item.items():
            self._set(name, key, value)

    def _read_group(self, name: str, item: Item) -> None:
        """Take a group and everything below it."""
        group = self._add_group(name, item)
        sections = dict(item.items())
        for key in _SECTIONS:
            if key in sections:
                sections[key] = self._section(name, key, sections[key])
        for key, section in sections.items():
            if key == "vars":
                for variable, value in section.items():
                    self._set_group(group, variable, value)
            elif key == "children":
                self._read_children(name, section)
            elif key == "hosts":
                for pattern, value in section.items():
                    self._read_hosts(name, pattern, value)
            elif section.value is not None:
                close = difflib.get_close_matches(key, _SECTIONS, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                self._warn(
                    section,
                    f"{key!r} of group {name!r} has no effect: only vars, children and hosts do{meant}",
                )

    def _read_children(self, name: str, section: Item) -> None:
        for child, below in section.items():
            if not isinstance(below.value, dict | None):
                hint = f"write '{child}:' and its hosts below, or nothing"
                raise _refusal(below, f"group {child!r} is {_kind(below.value)}, not a mapping", hint)
            self._read_group(child, below)
            self._link(name, child, below.where)

    def _section(self, group: str, key: str, item: Item) -> Item:
        """Return a section as a mapping: a lone string counts as a mapping of that one name."""
        value = item.value
        if isinstance(value, str):
            return Item({str(value): None}, item.document, item.key)
        if isinstance(value, dict | None):
            return item
        name = (
            next((name for name in value if isinstance(name, str)), "NAME")
            if isinstance(value, list)
            else "NAME"
        )
        raise _refusal(
            item,
            f"{key!r} of group {group!r} is {_kind(value)}, not a mapping",
            f"write '{name}:' with a colon and without a dash",
        )

    def _read_hosts(self, group: str, pattern: str, item: Item) -> None:
        """Take one entry of a ``hosts`` section: a name or a range, and its variables."""
        if not is_string_key(item):
            raise _refusal(
                item, f"the host name {pattern} was read as {_key_kind(item)}", f'quote it: "{pattern}"'
            )
        names, port = expand(pattern, item.where)
        if not isinstance(item.value or {}, dict):
            hint = "write its variables below it as NAME: VALUE"
            raise _refusal(item, f"host {pattern!r} has {_kind(item.value)} where its variables belong", hint)
        variables = list(item.items())
        for name in names:
            self._add_host(name, group, port, item)
            for key, value in variables:
                self._set(name, key, value)

    def _read_listed_group(self, name: str, item: Item) -> Iterator[str]:
        """Take a group of a listing, and yield the names of its hosts."""
        group = self._add_group(name, item)
        if not isinstance(item.value, dict):
            sections = {"hosts": item}
        elif not any(key in item.value for key in _SECTIONS):
            sections = {"hosts": Item([name], item.document), "vars": item}
        else:
            sections = dict(item.items())
        hosts, variables, children = (sections.get(key) for key in ("hosts", "vars", "children"))
        for host in _names(hosts, f"the hosts of group {name!r}"):
            self._add_host(host, name, None, item)
            yield host
        if variables is not None:
            if not isinstance(variables.value, dict):
                raise _refusal(
                    item, f"the vars of group {name!r} are {_kind(variables.value)}", "print a JSON object"
                )
            for key, value in variables.items():
                self._set_group(group, key, value)
        for child in _names(children, f"the children of group {name!r}"):
            self._add_group(child, item)
            self._link(name, child, item.where)

    def _add_group(self, name: str, item: Item) -> _Group:
        if not is_string_key(item):
            raise _refusal(
                item, f"the group name {name} was read as {_key_kind(item)}", f'quote it: "{name}"'
            )
        if not name:
            raise _refusal(item, "a group has no name", "remove it, or name it")
        if name not in self._groups:
            self._groups[name] = _Group(name)
        return self._groups[name]

    def _add_host(self, name: str, group: str, port: int | None, item: Item) -> None:
        if name not in self._hosts:
            check_name(name, item.where)
            host = self._hosts[name] = _Host(name, item.where)
            if port:
                host.vars["ansible_port"] = Item(port, item.document, item.key)
        self._groups[group].hosts[name] = None

    def _set(self, name: str, key: str, value: Item) -> None:
        """Set a variable of a host; Ansible gives it to the group of that name if there is one."""
        if name in self._groups:
            self._set_group(self._groups[name], key, value)
        else:
            _put(self._hosts[name].vars, key, value)

    def _set_group(self, group: _Group, key: str, item: Item) -> None:
        if key != "ansible_group_priority":
            _put(group.vars, key, item)
            return
        try:
            group.priority = int(item.value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            message = f"the priority of group {group.name!r} is no number: {item.value!r}"
            raise _refusal(item, message, "write ansible_group_priority: 10") from None

    def _link(self, parent: str, child: str, where: Location) -> None:
        """Make ``child`` a child of ``parent``.

        :raises InventoryError: that would close a circle.
        """
        if child in self._groups[parent].children:
            return
        if child == parent or child in self._ancestors(parent):
            raise InventoryError(
                f"group {child!r} cannot be a child of {parent!r}: that would be a circle",
                where=where,
                hint=f"remove {child!r} from the children of {parent!r}",
            )
        self._groups[parent].children[child] = None
        self._groups[child].parents[parent] = None

    def _ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        waiting = list(self._groups[name].parents)
        while waiting:
            group = waiting.pop()
            if group not in found:
                found.add(group)
                waiting += self._groups[group].parents
        return found

    def _warn(self, item: Item, message: str) -> None:
        self.warnings.append(f"{item.where}: {message}")

    def names(self, kind: Literal["groups", "hosts"]) -> list[str]:
        """The names of all groups or hosts that the sources named so far."""
        return list(self._groups if kind == "groups" else self._hosts)

    def build(self, layers: Iterable[Layer] = ()) -> Inventory:
        """Return the inventory.

        :param layers: what ``group_vars`` and ``host_vars`` beside the sources hold, in their order.
        :raises InventoryError: ``all`` is made a child of a group.
        """
        for group in self._groups.values():
            if group.name != "all" and not group.parents:
                self._link("all", group.name, Location("inventory"))
        above = {name: self._ancestors(name) for name in self._groups}
        member_of: dict[str, set[str]] = {name: set() for name in self._hosts}
        for name, group in self._groups.items():
            for host in group.hosts:
                member_of[host] |= {name, *above[name]}
        self._settle_ungrouped(member_of)
        depths = self._depths()
        groups = {
            name: Group(name, tuple(group.hosts), tuple(group.children), depths[name], group.priority)
            for name, group in self._groups.items()
        }
        for name in self._groups.keys() & self._hosts.keys():
            self.warnings.append(f"{self._hosts[name].place}: {name!r} is the name of a group and of a host")
        return Inventory(dict(self._merge(member_of, groups, list(layers))), groups, tuple(self.warnings))

    def _settle_ungrouped(self, member_of: dict[str, set[str]]) -> None:
        """Put hosts that are in no group into ``ungrouped``, and take the others out."""
        ungrouped = self._groups["ungrouped"]
        for name, groups in member_of.items():
            if groups - {"all", "ungrouped"}:
                ungrouped.hosts.pop(name, None)
                groups.discard("ungrouped")
            else:
                ungrouped.hosts[name] = None
                groups |= {"all", "ungrouped"}

    def _depths(self) -> dict[str, int]:
        """The longest way from ``all`` to every group."""
        depths: dict[str, int] = {}

        waiting = list(self._groups)
        while waiting:
            name = waiting[-1]
            missing = [parent for parent in self._groups[name].parents if parent not in depths]
            if missing:
                waiting += missing
                continue
            depths[name] = max((depths[parent] + 1 for parent in self._groups[name].parents), default=0)
            waiting.pop()
        return depths

    def _merge(
        self, member_of: dict[str, set[str]], groups: dict[str, Group], layers: list[Layer]
    ) -> Iterator[tuple[str, Host]]:
        """Yield every host with its variables: those of groups, of all's files, groups' files, its own."""
        cache: dict[frozenset[str], Vars] = {}
        for name, host in self._hosts.items():
            inside = frozenset(member_of[name] - {"all"})
            if inside not in cache:
                order = sorted(inside, key=lambda group: (groups[group].depth, groups[group].priority, group))
                merged = dict(self._groups["all"].vars)
                for group in order:
                    merged |= self._groups[group].vars
                for layer in layers:
                    merged |= layer.groups.get("all", {})
                for layer in layers:
                    for group in order:
                        merged |= layer.groups.get(group, {})
                cache[inside] = merged
            origins = cache[inside] | host.vars
            for layer in layers:
                origins |= layer.hosts.get(name, {})
            origins = {key: item for key, item in origins.items() if key not in _MAGIC}
            values = {key: item.value for key, item in origins.items()}
            yield name, Host(name, tuple(sorted(inside)), values, origins, host.place)


def variables(document: Document) -> Vars:
    """Return the variables that a file of ``group_vars`` or ``host_vars`` sets.

    :raises InventoryError: it is not a mapping.
    """
    root = document.root
    if not root.value:
        return {}
    if not isinstance(root.value, dict):
        raise _refusal(
            root, f"a file of variables is a mapping, not {_kind(root.value)}", "write NAME: VALUE"
        )
    return dict(root.items())


def _put(vars_: Vars, key: str, item: Item) -> None:
    """Set a variable; a value without a line does not replace the same value with one."""
    if item.node is None and key in vars_ and vars_[key].value == item.value:
        return
    vars_[key] = item


def _names(item: Item | None, what: str) -> list[str]:
    """Return a listing's list of names."""
    if item is None:
        return []
    if not isinstance(item.value, list):
        raise _refusal(item, f"{what} are {_kind(item.value)}, not a list", "print a JSON array of names")
    for name in item.value:
        if not isinstance(name, str):
            raise _refusal(item, f"{what} hold {_kind(name)}, not only names", "print names as JSON strings")
    return [str(name) for name in item.value]


def _kind(value: Value) -> str:
    """Name the type of a value for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "a string" if isinstance(value, str) else f"a {type(value).__name__.lower()}"


def _key_kind(item: Item) -> str:
    tag = item.key.tag.rpartition(":")[2] if item.key else "str"
    kinds = {
        "int": "a number",
        "float": "a number",
        "bool": "a boolean",
        "null": "nothing",
        "timestamp": "a date",
    }
    return kinds.get(tag, "something other than a string")


def _refusal(item: Item, message: str, hint: str) -> InventoryError:
    return InventoryError(message, where=item.where, hint=hint)
