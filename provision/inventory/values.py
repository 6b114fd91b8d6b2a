"""Values of variables, each with the place in the file where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

from provision.errors import InventoryError, Location

if TYPE_CHECKING:
    from yaml import Node


@dataclass(frozen=True)
class Vault:
    """A value that ansible-vault encrypted; nothing here decrypts it."""

    ciphertext: str = field(repr=False)


class Unsafe(str):
    """A string tagged ``!unsafe``: what looks like a template in it is meant literally."""

    __slots__ = ()


Value: TypeAlias = "bool | int | float | str | date | Vault | Sequence[Value] | Mapping[str, Value] | None"
"""What a variable can hold. Strings with Jinja templates stay as they are written."""

Entries: TypeAlias = "dict[str, tuple[Node, Node]]"
"""Key → the nodes of the key and of its value, in a mapping's node."""

DEPTH = 100  # levels; libyaml's composer recurses in C and overflows the stack on deep input


@dataclass(frozen=True, slots=True)
class Item:
    """A value in a document, with the nodes of the YAML tree that it and its key were made from."""

    value: Value
    document: Document = field(repr=False, compare=False)
    key: Node | None = field(default=None, repr=False, compare=False)
    node: Node | None = field(default=None, repr=False, compare=False)

    @property
    def where(self) -> Location:
        """Where the value's key stands, or the value itself where it has none."""
        return self.document.location(self.key or self.node)

    def items(self) -> Iterator[tuple[str, Item]]:
        """Yield the entries of a mapping in the order written; nothing for any other value."""
        if not isinstance(self.value, Mapping):
            return
        nodes = self.document.keys_of(self.node)
        for key, value in self.value.items():
            key_node, node = nodes.get(key, (self.key, None))
            yield key, Item(value, self.document, key_node, node)

    def get(self, key: str) -> Item | None:
        """The entry of a mapping; None where there is none, and for any other value."""
        if not isinstance(self.value, Mapping) or key not in self.value:
            return None
        key_node, node = self.document.keys_of(self.node).get(key, (self.key, None))
        return Item(self.value[key], self.document, key_node, node)

    def elements(self) -> Iterator[Item]:
        """Yield the elements of a list in their order; nothing for any other value."""
        if not isinstance(self.value, list):
            return
        nodes = self.node.value if self.node is not None else [None] * len(self.value)
        for value, node in zip(self.value, nodes, strict=True):
            yield Item(value, self.document, node or self.key, node)

    def at(self, *path: str | int) -> Location | None:
        """Where the value at ``path`` stands, or None where there is no such value."""
        item = self
        for step in path:
            value = item.value
            if isinstance(value, Mapping) and str(step) in value:
                item = dict(item.items())[str(step)]
            elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
                node = item.node.value[step] if item.node is not None else None
                item = Item(value[step], self.document, node or item.key, node)
            else:
                return None
        return item.where


class Document:
    """One parsed text.

    :ivar path: the name of the source, for messages.
    :ivar root: the whole of it.
    :ivar encrypted: it is a file that ansible-vault encrypted as a whole; ``root`` holds None.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.root = Item(None, self)
        self.encrypted = False
        self._keys: dict[int, Entries] = {}

    def location(self, node: Node | None) -> Location:
        """The place of a node; that of the document as a whole where there is none."""
        if node is None:
            return Location(self.path)
        return Location(self.path, node.start_mark.line + 1, node.start_mark.column + 1)

    def keys_of(self, node: Node | None) -> Entries:
        """The entries of a mapping's node; nothing for any other node."""
        return self._keys.get(id(node), {})

    def index(self, node: Node, keys: Entries) -> None:
        """Remember where the keys of a mapping stand."""
        self._keys[id(node)] = keys


def is_template(value: object) -> bool:
    """Whether a value is one that Jinja would make another one of."""
    return isinstance(value, str) and not isinstance(value, Unsafe) and ("{{" in value or "{%" in value)


def kind_of(value: object) -> str:
    """Name the type of a value for a message."""
    if value is None:
        return "nothing"
    names: dict[type | tuple[type, ...], str] = {
        dict: "a mapping",
        list: "a list",
        bool: "a boolean",
        (int, float): "a number",
        str: "a string",
        Vault: "a value that ansible-vault encrypted",
    }
    return next((name for types, name in names.items() if isinstance(value, types)), "a date")


def overlaid(below: Value, above: Value) -> Value:
    """``above`` over ``below``: mappings are merged key by key, anything else is replaced."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: overlaid(below.get(key), value) for key, value in above.items()}}


def plain(value: Value) -> Any:
    """Return ``value`` as JSON types only, the way ``ansible-inventory --list`` shows it."""
    if isinstance(value, Vault):
        return {"__ansible_vault": value.ciphertext}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def encodable(text: str, where: Location) -> str:
    """Return ``text`` unless it holds half of a surrogate pair, which no file or host could be given."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InventoryError(
                f"the string {text!a} is not valid Unicode: it holds half of a surrogate pair",
                where=where,
                hint="write the character itself, or both halves of its escape",
            ) from None
    return text


def too_deep(where: Location) -> InventoryError:
    """The refusal of nesting that no inventory needs."""
    return InventoryError(f"nested more than {DEPTH} levels deep", where=where, hint="flatten the structure")
