"""config.toml of the NVIDIA Container Toolkit: declared keys in it, everything else as it is.

The toolkit's programs read the file when they start, and a container's start starts them: a change needs
no restart, and what runs already keeps what it has.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from provision.errors import Refusal
from provision.resource import ABSENT, Change, Missing, Planned
from provision.resources.file import FILES, File, FileState, OfPaths, content_of
from provision.roles.toolkit.config_keys import Value, default

CONFIG_TOML = "/etc/nvidia-container-runtime/config.toml"

_HINT = f"repair {CONFIG_TOML} by hand or move it away; it is never overwritten while it cannot be read"


def read(content: bytes) -> dict[str, Any]:
    """Read a config.toml that somebody wrote.

    :raises Refusal: with the line, if it is not TOML.
    """
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refusal(f"{CONFIG_TOML}:{line}: not UTF-8", hint=_HINT) from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        where = f"{CONFIG_TOML}:{at.group(1)}" if at else CONFIG_TOML
        raise Refusal(f"{where}: not TOML: {str(error)[: at.start() if at else None]}", hint=_HINT) from error


def differing(document: Mapping[str, Any], declared: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the ``declared`` keys that have another value in ``document``.

    A key that is not there has its default, as the toolkit reads it.

    :raises Refusal: if a table and a value stand in each other's place.
    """
    changes = {}
    for key, value in declared.items():
        now = _value(document, key)
        if (type(now), now) != (type(value), value):
            changes[key] = value
    return changes


def _value(document: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted name, or its default where there is none."""
    at: Any = document
    for name in key.split("."):
        if not isinstance(at, Mapping):
            raise Refusal(
                f"{CONFIG_TOML}: {key} cannot be set: a table above it is the value {at!r}", hint=_HINT
            )
        at = at.get(name)
        if at is None:
            return default(key)
    if isinstance(at, Mapping):
        raise Refusal(f"{CONFIG_TOML}: {key} is a table, not a value", hint=_HINT)
    return at


def with_keys(content: bytes, changes: Mapping[str, Value]) -> bytes:
    """The text with ``changes`` in it; comments, order and all other keys stay.

    :raises Refusal: if the text cannot be written so that it means just that.
    """
    import tomlkit  # noqa: PLC0415 - takes its time to load, and most runs change nothing
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    meant = read(content)
    try:
        document = tomlkit.parse(content.decode("utf-8"))
        added: list[Any] = []
        for key, value in changes.items():
            *tables, name = key.split(".")
            at: Any = document
            for table in tables:
                if table not in at:
                    at[table] = tomlkit.table()
                    added.append(at[table])
                at = at[table]
            at[name] = value
        for table in added:
            if not all(isinstance(value, Mapping) for value in table.values()):
                table.add(tomlkit.nl())
        text = (tomlkit.dumps(document).rstrip("\n") + "\n").encode("utf-8")
    except (TOMLKitError, TypeError) as error:
        raise Refusal(f"{CONFIG_TOML} cannot be changed as it is: {error}", hint=_HINT) from error
    if read(text) != _merged(meant, changes):
        raise Refusal(f"{CONFIG_TOML} cannot be changed and keep its meaning", hint=_HINT)
    return text


def _merged(document: Mapping[str, Any], changes: Mapping[str, Value]) -> dict[str, Any]:
    """What the changed text has to mean."""
    merged = dict(document)
    for key, value in changes.items():
        name, _, below = key.partition(".")
        merged[name] = _merged(merged.get(name, {}), {below: value}) if below else value
    return merged


@dataclass(frozen=True)
class ConfigToml(OfPaths[FileState | Missing]):
    """Keys that must have these values; all others stay as they are.

    It stands before the packages: they rewrite the file when they are installed or upgraded
    (``nvidia-ctk config --in-place`` in their scripts), which keeps its values.

    :ivar keys: values by dotted name.
    """

    keys: Mapping[str, Value] = field(hash=False)
    kind: ClassVar[str] = "config-toml"
    shell = (FILES,)

    @property
    def id(self) -> str:
        return f"file:{CONFIG_TOML}"

    @property
    def paths(self) -> tuple[str, ...]:
        return (CONFIG_TOML,)

    def seen(self, found: Mapping[str, FileState | Missing]) -> FileState | Missing:
        return found[CONFIG_TOML]

    def bare(self) -> Missing:
        return ABSENT

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:
        """Set the keys that have another value; take it back from others who may write it.

        :raises Refusal: if the present file cannot be read as TOML.
        """
        there = content_of(CONFIG_TOML, state)
        content = there or b""
        changes = differing(read(content), self.keys)
        if not changes:
            return None if there is None else File.edited(CONFIG_TOML, there, state).change(state, planned)
        write = File.edited(CONFIG_TOML, with_keys(content, changes), state).change(state, planned)
        return write and replace(
            write,
            summary=f"set {', '.join(changes)} in {CONFIG_TOML}",
            reason="counts for containers that start from then on; other keys stay as they are",
        )
