"""YAML 1.1 text → nodes → values, by PyYAML's rules for safe loading, and with Ansible's tags.

Only reading an inventory or manifests imports this file, and with it PyYAML.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from provision.errors import InventoryError, Location
from provision.inventory.values import DEPTH, Document, Entries, Unsafe, Value, Vault, encodable, too_deep

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_MAYBE_DEEP = re.compile(r"^ {50}|^(?: *[-?] +){20}", re.MULTILINE)
_MOST_VALUES = 1_000_000


def compose(text: str, path: str) -> yaml.Node | None:
    """Return the tree of YAML nodes of ``text``, None for an empty one."""
    with _readable(text, path) as loader_class:
        return yaml.compose(text, Loader=loader_class)


def compose_all(text: str, path: str) -> list[yaml.Node]:
    """Return the trees of YAML nodes of the documents in ``text``, without those that are empty."""
    with _readable(text, path) as loader_class:
        return [node for node in yaml.compose_all(text, Loader=loader_class) if node is not None]


@contextlib.contextmanager
def _readable(text: str, path: str) -> Iterator[Any]:
    """Give the class that loads ``text``; what it refuses becomes an error with file and line."""
    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if text.count("[") + text.count("{") > DEPTH or _MAYBE_DEEP.search(text):
            _check_depth(text, loader_class, path)
        yield loader_class
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark if error.problem_mark is not None else error.context_mark
        last = max(len(text.splitlines()), 1)  # the end of the text counts as a line of its own
        where = Location(path) if mark is None else Location(path, min(mark.line + 1, last), mark.column + 1)
        raise _syntax_error(text, where, error.problem or error.context or "not YAML") from None
    except yaml.YAMLError as error:
        raise _syntax_error(text, Location(path), str(error).split("\n", 1)[0]) from None
    except UnicodeEncodeError:
        raise _syntax_error(text, Location(path), "half of a surrogate pair is no character") from None


def _check_depth(text: str, loader_class: Any, path: str) -> None:
    """Refuse nesting that would overflow the stack; reading the events alone does not recurse."""
    depth = 0
    for event in yaml.parse(text, Loader=loader_class):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH:
                mark: Any = event.start_mark
                raise too_deep(Location(path, mark.line + 1, mark.column + 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_error(text: str, where: Location, problem: str) -> InventoryError:
    """Say what is wrong with the YAML, with the usual cause where the line shows it."""
    # libyaml ends lines where splitlines does, but for characters that YAML refuses anyway.
    lines = text.splitlines()
    line = lines[where.line - 1] if 0 < where.line <= len(lines) else ""
    hint = "check the indentation and the quotes of this line and the one above"
    if "character escape" in problem or "surrogate" in problem:
        hint = "write the character itself, or its code: \\U0001F600; half of a pair such as \\ud83d is none"
    elif "\t" in line:
        hint = "YAML is indented by spaces; this line holds a tab"
    elif re.search(r":\s+\{\{", line):
        hint = 'a value that starts with {{ has to be quoted: "{{ … }}"'
    elif re.search(r":\s+[^'\"#]*:\s", line):
        hint = "a value that holds ': ' has to be quoted"
    elif re.search(r"[:-]\s+[*&%@`]", line):
        hint = "a value that starts with one of * & % @ ` has to be quoted"
    return InventoryError(f"not valid YAML: {problem}", where=where, hint=hint)


class Maker:
    """Makes values from YAML nodes by the rules of PyYAML's SafeConstructor, remembering where keys stand."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._scalars: Any = SafeConstructor()
        self._made: dict[tuple[int, bool], Value] = {}
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()
        self._merging: set[int] = set()
        self._copies: list[yaml.Node] = []  # kept, because nodes are known by their id

    def make(self, node: yaml.Node | None, *, unsafe: bool = False) -> Value:
        """Return the value of ``node``; an alias gives the very object that its anchor gave."""
        if node is None:
            return None
        known = (id(node), unsafe)
        if known in self._made:
            return self._made[known]
        if id(node) in self._open:
            raise self._problem(node, "this alias stands inside of what it refers to", "write the value out")
        self._open.add(id(node))
        value = self._make(node, unsafe)
        self._open.discard(id(node))
        self._made[known] = value
        self._weigh(node, value)
        return value

    def _weigh(self, node: yaml.Node, value: Value) -> None:
        """Refuse aliases of aliases of aliases: small in the file, and without end once written out."""
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        size = 1 + sum(self._sizes.get(id(item), 1) for item in inside)
        self._sizes[id(value)] = size
        if size > _MOST_VALUES:
            raise self._problem(
                node, f"its aliases stand for more than {_MOST_VALUES} values", "use fewer aliases"
            )

    def _make(self, node: yaml.Node, unsafe: bool) -> Value:
        tag = node.tag
        if tag == "!unsafe":
            return self._make(self._untagged(node), True)
        if tag in {"!vault", "!vault-encrypted"}:
            text = self._make(self._untagged(node), unsafe)
            if not isinstance(text, str):
                raise self._problem(
                    node,
                    f"{tag} belongs in front of an encrypted string",
                    "write it as ansible-vault prints it",
                )
            return Vault(str(text))
        if isinstance(node, yaml.MappingNode) and tag == _TAG + "map":
            return {key: self.make(value, unsafe=unsafe) for key, (_, value) in self._mapping(node).items()}
        if isinstance(node, yaml.SequenceNode) and tag == _TAG + "seq":
            return [self.make(item, unsafe=unsafe) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, unsafe)
        raise self._problem(node, f"the tag {_shown(tag)} is not known here", "remove the tag")

    def _untagged(self, node: yaml.Node) -> yaml.Node:
        """Return the node with the tag that it would have had without its own."""
        resolver: Any = Resolver()
        tag = resolver.resolve(type(node), node.value, (True, False))
        copy = type(node)(tag, node.value, node.start_mark, node.end_mark)
        self._copies.append(copy)
        if isinstance(node, yaml.MappingNode):
            self._document.index(node, self._mapping(copy))
        return copy

    def _scalar(self, node: yaml.Node, unsafe: bool) -> Value:
        kind = node.tag.removeprefix(_TAG)
        text: str = node.value
        if kind == "str":
            text = encodable(text, self._document.location(node))
            return Unsafe(text) if unsafe else text
        if kind not in {"null", "bool", "int", "float", "timestamp"}:
            raise self._problem(
                node, f"the tag {_shown(node.tag)} is not known here", "quote the value, or remove the tag"
            )
        try:
            value: Value = getattr(self._scalars, f"construct_yaml_{kind}")(node)
            if isinstance(value, int):
                str(value)  # of more than 4300 digits raises; hexadecimal text may have them
        except (ValueError, OverflowError, KeyError, AttributeError, IndexError, TypeError):
            # PyYAML's patterns let through what its constructors cannot make, such as 2024-99-99 and 0x_.
            raise self._problem(
                node, f"{text!r} is not a valid {kind} value of YAML", "quote it if it is meant as text"
            ) from None
        return value

    def _mapping(self, node: yaml.Node) -> Entries:
        """Return the entries of a mapping, those merged by ``<<`` first, as PyYAML flattens them."""
        if known := self._document.keys_of(node):
            return known
        merged: Entries = {}
        own: Entries = {}
        self._merging.add(id(node))
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged |= self._merged(value_node)
                continue
            key = self._key(key_node)
            if key in own:
                first = own[key][0].start_mark.line + 1
                raise self._problem(
                    key_node, f"key {key!r} is given twice", f"it stands in line {first} already; keep one"
                )
            own[key] = (key_node, value_node)
        self._merging.discard(id(node))
        entries = merged | own
        self._document.index(node, entries)
        return entries

    def _merged(self, node: yaml.Node) -> Entries:
        """Return what ``<<: node`` brings; of a list, the first one has precedence."""
        if id(node) in self._merging:
            raise self._problem(node, "this mapping is merged into itself", "write the value out")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        result: Entries = {}
        if isinstance(node, yaml.SequenceNode) and all(
            isinstance(item, yaml.MappingNode) for item in node.value
        ):
            for item in reversed(node.value):
                result |= self._merged(item)
            return result
        raise self._problem(
            node,
            "<< merges a mapping or a list of mappings, and this is neither",
            "name an anchor: <<: *name",
        )

    def _key(self, node: yaml.Node) -> str:
        """Return a mapping's key as the string that JSON makes of it."""
        if not isinstance(node, yaml.ScalarNode):
            raise self._problem(node, "a key has to be a plain word", "quote a value that starts with { or [")
        if node.tag == _TAG + "value":
            return "="
        value = self._make(node, False)
        if value is None or isinstance(value, bool | int | float):
            return json.dumps(value)
        return value.isoformat() if isinstance(value, date) else str(value)

    def _problem(self, node: yaml.Node, message: str, hint: str) -> InventoryError:
        return InventoryError(message, where=self._document.location(node), hint=hint)


def _shown(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
