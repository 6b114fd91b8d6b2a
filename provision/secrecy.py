"""What may be a secret, by its name or by what it is, and texts without it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "(hidden)"

_WORDS = (
    "password|passwd|passphrase|secret|tokens?(?![a-z])|authorization|credential"
    "|(?:api|private|access|auth)[_-]?key(?![_-]?file)"
    # tritonserver's --http-restricted-api=API:KEY=VALUE and --grpc-restricted-protocol; getopt shortens them.
    "|(?<=--)(?:http|grpc)[_-]r"
)
_NAME = re.compile(rf"{_WORDS}|(?:^|[_.-])(?:pass|pw|pwd)$", re.IGNORECASE)
_MAPPINGS = frozenset({"env", "environment", "registry_logins"})
"""Mappings in which any value may be a secret."""

_UNIT = r"(?:service|command|image-of):[\w-]+@[\w.-]+\.service(?![\w.-])"
"""The id of a resource that is about an instance of a unit."""

_ADDRESS = re.compile(
    rf"(?<=://)[^\s\"'<>]*(?=@)|(?<![^\s\"'=])(?!{_UNIT})[^\s\"'<>/@:=]+:[^\s\"'<>/@]+(?=@)"
)
"""User and password in an address; neither may hold ``/`` or ``@``, and people write both."""

_NAMED = re.compile(
    rf"""("[^"\n]*(?:{_WORDS})[^"\n]*"[ \t]*:[ \t]*)(?:"(?:[^"\\\n]|\\.)*"|[^\s,"\[\]{{}}]+)"""
    rf"""|("[\w.-]*(?:{_WORDS})[\w.-]*=)(?:[^"\\\n]|\\.)*"""
    rf"""|((?:(?<![\w.-])|--)[\w.-]*(?:{_WORDS})[\w.-]*=)(?:"[^"\n]*"|'[^'\n]*'|[^\s&;"']+)"""
    rf"""|(--[\w-]*(?:{_WORDS})[\w-]*"?[ \t]+(?:\\\n[-+ ]?[ \t]*)?)(?:"(?:[^"\\\n]|\\.)*"|\S+)"""
    rf"""|^([-+ ]?[ \t]*(?:Environment=)?["']?[\w.-]*(?:{_WORDS})[\w.-]*[ \t]*[=:][ \t]*)\S.*""",
    re.IGNORECASE | re.MULTILINE,
)
"""A secret behind its name: in JSON, as ``NAME=…``, as an option, or on a line of its own."""


def is_secret(path: Sequence[str | int], value: object = None) -> bool:
    """Whether the value that stands at ``path`` of some variables may be a secret, or hold one."""
    named = any(_NAME.search(str(step)) for step in path)
    if named or not _MAPPINGS.isdisjoint(path[:-1]):
        return True
    if path and path[-1] in _MAPPINGS:  # and what stands there is no mapping
        return True
    # Of an address that is none nobody can tell where its password ends.
    return isinstance(value, str) and (("://" in value and "@" in value) or without_secrets(value) != value)


def masked(value: Any, path: Sequence[str | int] = ()) -> Any:
    """A value of JSON types with ``(hidden)`` for what may be a secret; addresses lose user and password."""
    if isinstance(value, Mapping):
        if "value" in value and _NAME.search(str(value.get("name", ""))):
            value = {**value, "value": HIDDEN}
        return {key: masked(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [
            HIDDEN if item and _awaits_secret(before) else masked(item, (*path, number))
            for number, (before, item) in enumerate(zip([None, *value], value, strict=False))
        ]
    if value and is_secret(path):
        return HIDDEN
    return without_secrets(value) if isinstance(value, str) else value


def _awaits_secret(word: object) -> bool:
    """Whether it is an option alone, such as ``--api-key``, whose value is the next word."""
    return isinstance(word, str) and re.fullmatch(r"--[\w-]+", word) is not None and is_secret([word])


def without_secrets(text: str) -> str:
    """A text of files or programs without passwords in addresses, and without those behind their names."""
    if "PRIVATE KEY-----" in text:
        return HIDDEN
    return _NAMED.sub(rf"\1\2\3\4\5{HIDDEN}", _ADDRESS.sub(HIDDEN, text))
