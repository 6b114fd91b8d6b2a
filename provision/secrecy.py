"""What may be a secret, by its name or by what it is, and texts without it. Pure."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


SHORTEST = 4
"""Characters from which on a value with the name of a secret is looked for in texts."""

SHORTEST_OF_ENV = 8
"""The same of the other values of an ``env``, most of which are none."""

SHORTEST_CUT = 8
"""The same of the beginning of a longer one, whose end was cut off."""

_PLAIN = re.compile(r"[a-z_.-]+|[A-Z_.-]+|[\d.,:]+|[~.]?/[\w./:-]*")
"""A word, a number or a path: to hide it wherever it stands would make sentences unreadable."""


@dataclass(frozen=True)
class KnownSecrets:
    """The secret values of a host's variables, to be hidden in what its programs print.

    Call it with a text to get that text without them.
    """

    values: frozenset[str] = field(default=frozenset(), repr=False)

    def __call__(self, text: str) -> str:
        """``text`` with ``(hidden)`` for each of the values, as JSON writes it too, and for its lines."""
        if not self.values:
            return text
        text = self._whole.sub(HIDDEN, text)
        for form in self._forms:
            text = _without_beginning(text, form)
        return text

    @functools.cached_property
    def _forms(self) -> tuple[str, ...]:
        """Longest first, as one may be part of another."""
        return tuple(sorted({form for value in self.values for form in _forms(value)}, key=len, reverse=True))

    @functools.cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._forms)))


def _without_beginning(text: str, form: str) -> str:
    """``text`` without what is left of a secret where it was cut, if that is long enough to be told apart."""
    if len(form) <= SHORTEST_CUT:
        return text
    pieces = text.split(form[:SHORTEST_CUT])
    rest = form[SHORTEST_CUT:]
    return pieces[0] + "".join(HIDDEN + piece[_alike(piece, rest) :] for piece in pieces[1:])


def _alike(one: str, other: str) -> int:
    """How many characters are the same at the beginning of both."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _forms(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield "".join(c if c.isascii() and (c.isalnum() or c in "-._~") else _percent(c) for c in value)
    yield base64.b64encode(value.encode()).decode("ascii")
    yield from (line for line in value.splitlines() if len(line) >= SHORTEST_OF_ENV)


def secret_values(value: object, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Values of variables that may be secrets; of a login also what HTTP's basic authentication sends."""
    if isinstance(value, Mapping):
        if (user := value.get("user", value.get("username"))) and isinstance(value.get("password"), str):
            yield base64.b64encode(f"{user}:{value['password']}".encode()).decode("ascii")
        for key, item in value.items():
            yield from secret_values(item, (*path, key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from secret_values(item, (*path, number))
    elif isinstance(value, str) and is_secret(path):
        named = any(_NAME.search(str(step)) for step in path)
        if len(value) >= SHORTEST if named else len(value) >= SHORTEST_OF_ENV and not _PLAIN.fullmatch(value):
            yield value
