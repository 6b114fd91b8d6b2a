"""YAML or JSON text → values, each with the place in the file where it stands.

The dialect is Ansible's: a text that is JSON is read as JSON, any other as YAML 1.1 by PyYAML's rules, with
the tags ``!unsafe`` and ``!vault``. A mapping's keys become strings, as in ``ansible-inventory --list``.
"""

from __future__ import annotations

import json

from provision.errors import InventoryError, Location
from provision.inventory.values import DEPTH, Document, Item, Unsafe, Value, Vault, encodable, too_deep

_VAULT_HEADER = "$ANSIBLE_VAULT;"


def parse(text: str, path: str) -> Document:
    """Read a text as Ansible reads an inventory or a file of variables.

    :param path: what to call the text in messages.
    :raises InventoryError: neither JSON nor YAML, a key given twice, an unknown tag, nesting beyond reason.
    """
    document = Document(path)
    text = text.removeprefix("\ufeff")
    if text.startswith(_VAULT_HEADER):
        document.encrypted = True
        return document
    try:
        document.root = _read_json(document, text) or _read_yaml(document, text)
    except RecursionError:
        raise too_deep(Location(path)) from None
    return document


def parse_all(text: str, path: str) -> list[Document]:
    """Read a JSON text, or several YAML documents, such as Kubernetes' manifests; empty ones are left out.

    :param path: what to call the text in messages.
    :raises InventoryError: as :func:`parse`.
    """
    from provision.inventory.nodes import Maker, compose_all  # noqa: PLC0415 - as below

    text = text.removeprefix("\ufeff")
    found = []
    try:
        document = Document(path)
        if item := _read_json(document, text):
            document.root = item
            return [document]
        for node in compose_all(text, path):
            document = Document(path)
            document.root = Item(Maker(document).make(node), document, None, node)
            found.append(document)
    except RecursionError:
        raise too_deep(Location(path)) from None
    return found


def of_data(data: object, path: str) -> Item:
    """Return what a JSON decoder returned as values without lines.

    :raises InventoryError: it holds something that no JSON text can hold.
    """
    return Item(_from_json(data, Location(path)), Document(path))


def load_json(text: str, path: str) -> object:
    """Decode JSON, refusing a key that is given twice.

    :raises InventoryError: a key is given twice.
    :raises ValueError: it is not JSON.
    """

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(items)
        if len(result) != len(items):
            names = [name for name, _ in items]
            twice = next(name for name in names if names.count(name) > 1)
            raise InventoryError(
                f"key {twice!r} is given twice", where=Location(path), hint="keep one of the two"
            )
        return result

    return json.loads(text, object_pairs_hook=pairs)


def _read_json(document: Document, text: str) -> Item | None:
    """Return what ``text`` says if that is a JSON object, with lines where it is YAML too."""
    if text.lstrip()[:1] != "{":
        return None
    try:
        data = load_json(text, document.path)
    except ValueError:
        return None
    value = _from_json(data, Location(document.path))
    try:
        node = _read_yaml(document, text).node
    except InventoryError:
        node = None  # JSON that is not YAML 1.1, such as one indented by tabs: values without lines
    return Item(value, document, None, node)


def _read_yaml(document: Document, text: str) -> Item:
    from provision.inventory.nodes import Maker, compose  # noqa: PLC0415 - PyYAML takes its time to load

    node = compose(text, document.path)
    return Item(Maker(document).make(node), document, None, node)


def _from_json(data: object, where: Location, depth: int = 0) -> Value:
    if depth > DEPTH:
        raise too_deep(where)
    if isinstance(data, dict):
        if isinstance(text := data.get("__ansible_vault"), str):
            return Vault(text)
        if isinstance(text := data.get("__ansible_unsafe"), str):
            return Unsafe(encodable(text, where))
        return {
            encodable(str(key), where): _from_json(value, where, depth + 1) for key, value in data.items()
        }
    if isinstance(data, list):
        return [_from_json(value, where, depth + 1) for value in data]
    if isinstance(data, str):
        return encodable(data, where)
    if data is None or isinstance(data, bool | int | float):
        return data
    raise InventoryError(f"a value of type {type(data).__name__} is not JSON", where=where)
