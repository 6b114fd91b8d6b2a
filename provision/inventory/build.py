"""The formats of sources: Ansible's YAML, the JSON that programs print, files of variables.

Nothing here opens a file: ``provision.inventory.sources`` reads them and passes them on in order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from provision.errors import InventoryError
from provision.inventory.addresses import expand, split_port
from provision.inventory.document import of_data
from provision.inventory.draft import Draft, Vars
from provision.inventory.values import Document, Item, kind_of

_SECTIONS = ("vars", "children", "hosts")
_KEY_KINDS = {  # by the last part of YAML's tag
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "null": "nothing",
    "timestamp": "a date",
}


class Builder(Draft):
    """A draft that understands what sources hold; it takes them in their order."""

    def add_document(self, document: Document) -> None:
        """Take a parsed inventory in Ansible's YAML format.

        :raises InventoryError: it is not of that structure.
        """
        root = document.root
        if document.encrypted:
            hint = "keep hosts in a plain file, and encrypt single values with !vault"
            raise _refusal(root, "the inventory is encrypted with ansible-vault", hint)
        if not root.value:
            raise _refusal(root, "the inventory is empty", "write at least 'all: {hosts: {NAME: }}'")
        if not isinstance(root.value, dict):
            raise _refusal(
                root, f"an inventory is a mapping of groups, not {kind_of(root.value)}", "start with 'all:'"
            )
        for name, item in root.items():
            if isinstance(item.value, dict | None):
                if name in _SECTIONS:
                    self._warn(item, f"{name!r} is read as a group: write 'all:' above it, and indent it")
                self._read_group(name, item)
            else:
                self._warn(item, f"{name!r} is {kind_of(item.value)}, not a group: ignored")

    def add_names(self, names: Iterable[str]) -> None:
        """Take the hosts of a command line such as ``node1,node2:2222,``.

        :raises InventoryError: a name that no host can have.
        """
        for text in names:
            name, port = split_port(text) or (text, None)
            self.add_host(name, "ungrouped", port, Document("the list of hosts").root)

    def add_listing(self, data: object, path: str) -> set[str]:
        """Take what an executable source prints for ``--list``, and return the names of its hosts.

        The caller gives the variables of these to :meth:`add_host_vars` where the listing has no ``_meta``.

        :raises InventoryError: it is not of that structure.
        """
        root = of_data(data, path)
        if not isinstance(root.value, dict):
            raise _refusal(
                root, f"the listing is {kind_of(root.value)}, not a mapping of groups", "print a JSON object"
            )
        groups = dict(root.items())
        meta = groups.pop("_meta", None)
        listed: set[str] = set()
        for name, item in groups.items():
            listed.update(self._read_listed_group(name, item))
        if meta is not None:
            hostvars = dict(meta.items()).get("hostvars", Item(None, meta.document))
            if not isinstance(hostvars.value, dict):
                raise _not_a_mapping(hostvars, "_meta.hostvars is", "print it as a JSON object")
            for name, item in hostvars.items():
                if name in listed:
                    self.add_host_vars(name, item)
        return listed

    def add_host_vars(self, name: str, item: Item) -> None:
        """Set variables of a host that is known already, as a source's inline variables.

        :raises InventoryError: ``item`` is not a mapping.
        """
        if not isinstance(item.value or {}, dict):
            raise _not_a_mapping(item, f"the variables of host {name!r} are", "write NAME: VALUE")
        for key, value in item.items():
            self.set_host(name, key, value)

    def _read_group(self, name: str, item: Item) -> None:
        """Take a group and everything below it."""
        self._add_group(name, item)
        sections = dict(item.items())
        for key in _SECTIONS:
            if key in sections:
                sections[key] = self._section(name, key, sections[key])
        empty = None
        for key, section in sections.items():
            empty = key if key in _SECTIONS and not section.value else empty
            if key == "vars":
                for variable, value in section.items():
                    self.set_group(name, variable, value)
            elif key == "children":
                self._read_children(name, section)
            elif key == "hosts":
                for pattern, value in section.items():
                    self._read_hosts(name, pattern, value)
            else:
                close = difflib.get_close_matches(key, _SECTIONS, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                if empty and not close:
                    line = sections[empty].where.line
                    meant = f"; nothing stands below {empty!r} in line {line}: indent {key!r} more than that"
                self._warn(
                    section,
                    f"{key!r} of group {name!r} has no effect: only vars, children and hosts do{meant}",
                )

    def _read_children(self, name: str, section: Item) -> None:
        for child, below in section.items():
            if not isinstance(below.value, dict | None):
                hint = f"write '{child}:' and its hosts below, or nothing"
                raise _not_a_mapping(below, f"group {child!r} is", hint)
            self._read_group(child, below)
            self.link(name, child, below.where)

    def _section(self, group: str, key: str, item: Item) -> Item:
        """Return a section as a mapping: a lone string counts as a mapping of that one name."""
        value = item.value
        if isinstance(value, str):
            return Item({str(value): None}, item.document, item.key)
        if isinstance(value, dict | None):
            return item
        words = value if isinstance(value, list) else []
        name = next((word for word in words if isinstance(word, str)), "NAME")
        hint = f"write '{name}:' with a colon and without a dash"
        raise _not_a_mapping(item, f"{key!r} of group {group!r} is", hint)

    def _read_hosts(self, group: str, pattern: str, item: Item) -> None:
        """Take one entry of a ``hosts`` section: a name or a range, and its variables."""
        _require_string_key(item, "host", pattern)
        names, port = expand(pattern, item.where)
        if not isinstance(item.value or {}, dict):
            hint = "write its variables below it as NAME: VALUE"
            raise _refusal(
                item, f"host {pattern!r} has {kind_of(item.value)} where its variables belong", hint
            )
        variables = list(item.items())
        for name in names:
            self.add_host(name, group, port, item)
            for key, value in variables:
                self.set_host(name, key, value)

    def _read_listed_group(self, name: str, item: Item) -> list[str]:
        """Take a group of a listing, and return the names of its hosts."""
        self._add_group(name, item)
        if not isinstance(item.value, dict):
            sections = {"hosts": item}
        elif not any(key in item.value for key in _SECTIONS):
            sections = {"hosts": Item([name], item.document), "vars": item}
        else:
            sections = dict(item.items())
        hosts, variables, children = (sections.get(key) for key in ("hosts", "vars", "children"))
        listed = _names(hosts, f"the hosts of group {name!r}")
        for host in listed:
            self.add_host(host, name, None, item)
        if variables is not None:
            if not isinstance(variables.value, dict):
                raise _refusal(
                    item, f"the vars of group {name!r} are {kind_of(variables.value)}", "print a JSON object"
                )
            for key, value in variables.items():
                self.set_group(name, key, value)
        for child in _names(children, f"the children of group {name!r}"):
            self._add_group(child, item)
            self.link(name, child, item.where)
        return listed

    def _add_group(self, name: str, item: Item) -> None:
        _require_string_key(item, "group", name)
        if not name:
            raise _refusal(item, "a group has no name", "remove it, or name it")
        self.add_group(name)

    def _warn(self, item: Item, message: str) -> None:
        self.warnings.append(f"{item.where}: {message}")


def variables(document: Document) -> Vars:
    """Return the variables that a file of ``group_vars`` or ``host_vars`` sets.

    :raises InventoryError: it is not a mapping.
    """
    root = document.root
    if not root.value:
        return {}
    if not isinstance(root.value, dict):
        raise _refusal(
            root, f"a file of variables is a mapping, not {kind_of(root.value)}", "write NAME: VALUE"
        )
    return dict(root.items())


def _names(item: Item | None, what: str) -> list[str]:
    """Return a listing's list of names."""
    if item is None:
        return []
    if not isinstance(item.value, list):
        raise _refusal(item, f"{what} are {kind_of(item.value)}, not a list", "print a JSON array of names")
    for name in item.value:
        if not isinstance(name, str):
            raise _refusal(
                item, f"{what} hold {kind_of(name)}, not only names", "print names as JSON strings"
            )
    return [str(name) for name in item.value]


def _require_string_key(item: Item, what: str, name: str) -> None:
    """Refuse a name that YAML reads as something other than a string."""
    tag = item.key.tag.rpartition(":")[2] if item.key else "str"
    if tag not in {"str", "value"}:
        kind = _KEY_KINDS.get(tag, "something other than a string")
        raise _refusal(item, f"the {what} name {name} was read as {kind}", f'quote it: "{name}"')


def _not_a_mapping(item: Item, subject: str, hint: str) -> InventoryError:
    return _refusal(item, f"{subject} {kind_of(item.value)}, not a mapping", hint)


def _refusal(item: Item, message: str, hint: str) -> InventoryError:
    return InventoryError(message, where=item.where, hint=hint)
