"""The reference of all settings, made from their classes: for people, and as a schema for editors."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from provision.bare.bootstrap_settings import BOOTSTRAP, Bootstrap
from provision.bare.seed_settings import SEED, Seed
from provision.expectation.settings import EXAMPLE, EXPECT, Expect
from provision.inventory import Host
from provision.inventory.values import Value, Vault, plain
from provision.plan.backups import BACKUPS, Backups
from provision.role import Role
from provision.secrecy import HIDDEN, masked

Schema = Mapping[str, Any]

ENCRYPTED = "(encrypted)"

OF_HOSTS = (
    Role(BACKUPS, Backups, lambda *_: ()),
    Role(EXPECT, Expect, lambda *_: (), example=EXAMPLE),
    Role(SEED, Seed, lambda *_: ()),
    Role(BOOTSTRAP, Bootstrap, lambda *_: ()),
)
"""Settings that no role has, with the host's variable for the role's name."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Setting:
    """One line of the reference.

    :ivar name: its way from the top of a host's variables: ``triton.instances.NAME.image``.
    :ivar type: in words.
    :ivar default: as YAML writes it in one line; empty where the setting must be given.
    :ivar example: likewise.
    """

    name: str
    type: str
    default: str
    meaning: str
    example: str

    def text(self, width: int) -> str:
        """A few lines, none wider than ``width`` unless a word is."""
        head = f"{self.name}: {self.type}, {f'default {self.default}' if self.default else 'must be given'}"
        lines = [head, *textwrap.wrap(self.meaning, width - 4)]
        if self.example:
            lines += textwrap.wrap(f"example: {self.example}", width - 4, break_on_hyphens=False)
        return "\n    ".join(lines)


def schema(roles: Sequence[Role]) -> dict[str, Any]:
    """The JSON schema of a host's variables: the settings of ``roles``, beside any others.

    Editors check files of group_vars and host_vars with it.
    """
    models, document = models_json_schema([(role.settings, "validation") for role in roles])
    found = {role.name: models[role.settings, "validation"] for role in roles}
    shared = {
        name: document["$defs"][found[role.name]["$ref"].rpartition("/")[2]]["properties"][name]
        for role in roles
        for name in role.shared
    }
    whole = {
        "$schema": DIALECT,
        "title": "Variables that the roles read, in a file of group_vars or host_vars",
        "type": "object",
        "properties": {name: {"anyOf": [part, {"type": "null"}]} for name, part in (found | shared).items()},
        **document,
    }
    return dict(_for_files(whole))


def _for_files(part: Any) -> Any:
    """A schema of one file: a group may give a part of a mapping, and other groups the rest.

    Names that a mapping's pattern does not fit are refused; texts have no marks of Python's documentation.
    """
    if isinstance(part, list):
        return [_for_files(item) for item in part]
    if not isinstance(part, dict):
        return part.replace("``", "") if isinstance(part, str) else part
    kept = {key: _for_files(value) for key, value in part.items() if key != "required"}
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    return kept


def origins(host: Host, roles: Sequence[Role], *, secrets: bool = False) -> str:
    """The groups of a host, and each value that it has with the place where that is written.

    :param roles: those whose settings are merged over all groups.
    :param secrets: show what may be a secret, too.
    """
    merged = {name for role in (*roles, *OF_HOSTS) for name in (role.name, *role.shared)}
    lines = [f"{host.name}  [{', '.join(host.groups)}]"]
    for key in host.vars:
        value = host.settings(key) if key in merged else host.vars[key]
        for path, leaf in _leaves((key,), value):
            shown = leaf if secrets else masked(leaf, path)
            place = str(host.where(*path) or host.where(key)).removeprefix(f"{Path.cwd()}/")
            lines.append(f"  {'.'.join(path)}: {_in_short(shown)}  ({place})")
    return "\n".join(lines)


def _leaves(path: tuple[str, ...], value: Value) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves((*path, key), below)
    else:
        yield path, ENCRYPTED if isinstance(value, Vault) else plain(value)


def _in_short(value: Any) -> str:
    if value in (ENCRYPTED, HIDDEN):
        return str(value)
    first, newline, _ = _yaml(value).partition("\\n")
    return first[:100] + (" …" if newline or len(first) > 100 else "")


def settings(role: Role) -> list[Setting]:
    """Every setting of a role, those of its parts below it."""
    document = role.settings.model_json_schema()
    return list(_below(role.name, document, document.get("$defs", {}), role.example))


def _below(path: str, model: Schema, parts: Mapping[str, Schema], example: Any) -> Iterator[Setting]:
    required = model.get("required", ())
    for name, field in model["properties"].items():
        given = example.get(name) if isinstance(example, Mapping) else None
        shown = field["examples"][0] if field.get("examples") else given
        whole = shown is not None and not (isinstance(shown, Mapping) and _part(field))
        yield Setting(
            f"{path}.{name}",
            _type(field, parts),
            "" if name in required else _yaml(field.get("default")),
            " ".join(field.get("description", "").replace("``", "").split()),
            f"{name}: {_yaml(shown)}" if whole else "",
        )
        if part := _part(field):
            step, inner = part
            first = given
            if step and given:
                first = next(iter(given.values())) if isinstance(given, Mapping) else given[0]
            yield from _below(f"{path}.{name}{step}", parts[inner], parts, first)


def _part(field: Schema) -> tuple[str, str] | None:
    """What a field adds to the way to a part of the model, and the name of that part."""
    for way in (field, *field.get("anyOf", ())):
        if "$ref" in way:
            return "", way["$ref"].rpartition("/")[2]
        if "$ref" in way.get("items", {}):
            return "[]", way["items"]["$ref"].rpartition("/")[2]
        for below in _values(way):
            if "$ref" in below:
                return ".NAME", below["$ref"].rpartition("/")[2]
    return None


def _values(field: Schema) -> list[Schema]:
    """What the values of a mapping may be."""
    found = [*field.get("patternProperties", {}).values()]
    if isinstance(field.get("additionalProperties"), Mapping):
        found.append(field["additionalProperties"])
    return [way for value in found for way in (value, *value.get("anyOf", ()))]


def _type(field: Schema, parts: Mapping[str, Schema]) -> str:
    """The type of a value in words: ``string or list of integers``."""
    if "$ref" in field:
        return "mapping"
    if "anyOf" in field:
        ways = [_type(way, parts) for way in field["anyOf"]]
        return " or ".join(dict.fromkeys(way for way in ways if way != "null"))
    if "enum" in field or "const" in field:
        return " | ".join(map(str, field.get("enum", [field.get("const")])))
    kind = field.get("type", "anything")
    if kind == "array":
        return f"list of {_type(field.get('items', {}), parts)}"
    if kind == "integer":
        return f"integer{_range(field)}"
    return {"object": "mapping", "boolean": "true | false"}.get(kind, str(kind))


def _range(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    return (
        f" from {low}" + (f" to {high}" if high is not None else "") if low is not None else f" up to {high}"
    )


def _yaml(value: Any) -> str:
    """A value in one line of YAML; JSON is YAML, and plain words need no quotes."""
    if isinstance(value, str) and value.replace("-", "").replace("_", "").isalpha():
        return value
    if isinstance(value, float):  # for YAML, 1e-05 is text
        return f"{value:f}".rstrip("0") if 0 < abs(value) < 1e-4 else repr(value)
    return json.dumps(value, ensure_ascii=False)
