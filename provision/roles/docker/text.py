"""Text of daemon.json to a document and back, without losing what its owner wrote.

Numbers stay the literals that they are (``1e2``, twenty digits), keys keep their order, and what dockerd
would read differently from its owner is refused rather than guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import simplejson

from provision.errors import Refusal
from provision.shell import constant

DAEMON_JSON = constant("docker/daemon_json.sh", "daemon_json")

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some editors begin a file with."""

_HINT = f"repair {DAEMON_JSON} by hand or move it away; it is never overwritten while it cannot be read"
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]', re.DOTALL)
_INDENT = re.compile(r"\{[^\S\n]*\n([ \t]+)\"")
_NAMES = {list: "list", str: "text", bool: "true or false", type(None): "null"}


class Number(simplejson.RawJSON):
    """A number as it is written: equal to another only if that is written the same way."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and self.encoded_json == other.encoded_json

    def __hash__(self) -> int:
        return hash(self.encoded_json)

    def __repr__(self) -> str:
        return f"Number({self.encoded_json!r})"


def parse(content: bytes) -> dict[str, Any]:
    """Read a daemon.json that somebody wrote.

    :raises Refusal: with what is wrong and in which line, if it is not one JSON object.
    """
    document = loads(_decoded(content))
    if not isinstance(document, dict):
        kind = _NAMES.get(type(document), "number")
        raise Refusal(f"{DAEMON_JSON} holds a JSON {kind}, not an object", hint=_HINT)
    return document


def plain(content: bytes) -> dict[str, Any]:
    """The same with the numbers of Python, for comparing.

    :raises Refusal: as :func:`parse`.
    """
    parse(content)
    document: dict[str, Any] = json.loads(_decoded(content))
    return document


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refusal(f"{DAEMON_JSON}:1: it is UTF-16, and dockerd reads UTF-8", hint=_HINT)
    # Some engines read past the mark and take an empty file for {}, others refuse both.
    content = content.removeprefix(BOM)
    try:
        return content.decode("utf-8") if content.strip() else "{}"
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refusal(f"{DAEMON_JSON}:{line}: not UTF-8: byte {error.start}", hint=_HINT) from error


def loads(text: str) -> Any:
    """Read JSON text; numbers become :class:`Number`.

    :raises Refusal: if it is not JSON, or says one thing twice.
    """
    try:
        document = simplejson.loads(text, parse_int=Number, parse_float=Number)
    except simplejson.JSONDecodeError as error:
        what = "text follows the end of the document" if error.msg == "Extra data" else error.msg
        raise Refusal(f"{DAEMON_JSON}:{error.lineno}: not JSON: {what}", hint=_HINT) from error
    except RecursionError as error:
        raise Refusal(f"{DAEMON_JSON} is nested too deeply to be kept as it is", hint=_HINT) from error
    if twice := _repeated(text):
        key, line = twice
        raise Refusal(f"{DAEMON_JSON}:{line}: key {key} is there twice in one object", hint=_HINT)
    return document


def _repeated(text: str) -> tuple[str, int] | None:
    """A key that an object of valid JSON ``text`` has twice, as it is written, and the line of the second."""
    objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            objects.append(set())
        elif token[0] == "}":
            objects.pop()
        elif token[2]:
            key = simplejson.loads(token[1])
            if key in objects[-1]:
                return token[1], text.count("\n", 0, token.start()) + 1
            objects[-1].add(key)
    return None


def as_text(document: Mapping[str, Any], like: bytes = b"") -> bytes:
    """The document as it is written to the host: indented as ``like`` is, or as nvidia-ctk indents."""
    found = _INDENT.match(like.decode("utf-8", "replace").lstrip())
    text = simplejson.dumps(document, indent=found[1] if found else "    ", ensure_ascii=False)
    # Half of a surrogate pair can stand in JSON only as the escape that backslashreplace makes of it.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def literal(value: Any) -> Any:
    """A value of the settings as :func:`loads` would have read it, so that both can be compared."""
    return simplejson.loads(simplejson.dumps(value), parse_int=Number, parse_float=Number)


def equal(one: Any, other: Any) -> bool:
    """Whether two values mean the same to dockerd; for Python ``True == 1``, for dockerd it is not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)
