"""Names of hosts as an inventory writes them: ranges, ports, and which names are refused."""

from __future__ import annotations

import math
import re
import string
from itertools import product

from provision.errors import InventoryError, Location

_MOST = 100_000  # hosts that one pattern may name

_LETTERS = string.ascii_letters
_NAME = re.compile(r"[\w:](?:[\w.:%@+=~-]*)")
_BRACKETED_PORT = re.compile(r"\[(.+)\]:([0-9]+)")
_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)")
_RANGE = re.compile(r"\[([^\[\]]*)\]")

# The shapes below are ansible-core's (ansible/parsing/utils/addresses.py): they decide whether "a:1" is a
# host with a port, and whether a colon in a pattern separates.
_NUMERIC = r"\[(?:[0-9]+:[0-9]+)(?::[0-9]+)?\]"
_HEXADECIMAL = r"\[(?:[0-9a-f]+:[0-9a-f]+)(?::[0-9]+)?\]"
_ALPHANUMERIC = r"\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]"
_H = rf"(?:[0-9a-f]{{1,4}}|{_HEXADECIMAL})"
_D = rf"(?:[01]?[0-9]{{1,2}}|2[0-4][0-9]|25[0-5]|{_NUMERIC})"
_LABEL = rf"(?:[\w]|{_ALPHANUMERIC})(?:[\w_-]|{_ALPHANUMERIC})*(?<![_-])"
_IPV6 = "|".join(
    [
        rf"(?:{_H}:){{7}}{_H}",
        rf"(?:{_H}:){{1,6}}:",
        rf"(?:{_H}:)(?::{_H}){{1,6}}",
        rf"(?:{_H}:){{2}}(?::{_H}){{1,5}}",
        rf"(?:{_H}:){{3}}(?::{_H}){{1,4}}",
        rf"(?:{_H}:){{4}}(?::{_H}){{1,3}}",
        rf"(?:{_H}:){{5}}(?::{_H}){{1,2}}",
        rf"(?:{_H}:){{6}}(?::{_H})",
        rf":(?::{_H}){{1,6}}",
        rf"{_H}?::",
        rf"(?:0:){{6}}(?:{_H}\.){{3}}{_H}",
        rf"::(?:ffff:)?(?:{_H}\.){{3}}{_H}",
        rf"(?:0:){{5}}ffff:(?:{_H}\.){{3}}{_H}",
    ]
)
_ADDRESS_TEXTS = (rf"(?:{_D}\.){{3}}{_D}", _IPV6, rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESSES = re.compile("|".join(f"(?:{text})" for text in _ADDRESS_TEXTS), re.IGNORECASE)


def split_port(text: str) -> tuple[str, int | None] | None:
    """Split ``name:port`` or ``[address]:port``; ranges are allowed in the name.

    Returns None for a text that is no host name or address at all.
    """
    port = None
    for shape in (_BRACKETED_PORT, _PORT):
        if (match := shape.fullmatch(text)) and len(match[2]) < 10:
            text, port = match[1], int(match[2])
    return (text, port) if _ADDRESSES.fullmatch(text) else None


def expand(pattern: str, where: Location | None = None) -> tuple[list[str], int | None]:
    """Return the host names that ``pattern`` stands for, and the port that follows them.

    ``node[01:16].example.com:2222`` gives 16 names and the port 2222. Several ranges multiply, the last one
    running fastest; ``[a:f]`` runs over letters, ``[0:9:3]`` in steps.

    :raises InventoryError: a range that is empty or not understood, or a name that no host can have.
    """
    base, port = split_port(pattern) or (pattern, None)
    if port is not None and not 0 <= port <= 65535:
        raise InventoryError(f"{pattern!r} has the impossible port {port}", where=where)
    parts = _RANGE.split(base)
    try:
        if any(mark in text for text in parts[::2] for mark in "[]"):
            raise ValueError("the brackets do not match")
        choices = [_range(part) if number % 2 else [part] for number, part in enumerate(parts)]
        if (count := math.prod(map(len, choices))) > _MOST:
            raise ValueError(f"it stands for {count} hosts, more than {_MOST}")
    except ValueError as error:
        message = f"the range in {pattern!r} is impossible: {error}"
        hint = "ranges look like node[01:16], node[0:9:3] or rack[a:f]"
        raise InventoryError(message, where=where, hint=hint) from None
    names = ["".join(words) for words in product(*choices)]
    for name in names:
        check_name(name, where)
    return names, port


def check_name(name: str, where: Location | None = None) -> None:
    """Refuse a host name that ssh, a file name or a host pattern would take for something else.

    :raises InventoryError: it is empty, starts with a dash or a dot, or holds more than letters, digits and
        ``.:-_%@+=~``.
    """
    if _NAME.fullmatch(name):
        return
    if not name:
        raise InventoryError("a host has no name", where=where)
    hint = "host names are made of letters, digits and .:-_%@+=~ and start with a letter or digit"
    raise InventoryError(f"{name!a} cannot be the name of a host", where=where, hint=hint)


def _range(text: str) -> list[str]:
    """Return the words that ``[text]`` stands for.

    :raises ValueError: saying why it is impossible.
    """
    bounds = text.split(":")
    if len(bounds) not in (2, 3):
        raise ValueError(f"[{text}] is not [begin:end] or [begin:end:step]")
    first, last = bounds[0] or "0", bounds[1]
    if not last:
        raise ValueError(f"[{text}] has no end")
    step = _number(bounds[2]) if len(bounds) == 3 else 1
    if step < 1:
        raise ValueError(f"[{text}] has a step of {step}")
    if len(first) == 1 and len(last) == 1 and first in _LETTERS and last in _LETTERS:
        words = list(_LETTERS[_LETTERS.index(first) : _LETTERS.index(last) + 1 : step])
    else:
        width = len(first) if first.startswith("0") and len(first) > 1 else 0
        if width and width != len(last):
            raise ValueError(f"in [{text}] the begin is padded to {width} digits, the end is not")
        numbers = range(_number(first), _number(last) + 1, step)
        if len(numbers) > _MOST:
            raise ValueError(f"it stands for more than {_MOST} hosts")
        words = [str(number).zfill(width) for number in numbers]
    if not words:
        raise ValueError(f"[{text}] ends before it begins")
    return words


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(f"{text!r} is neither a number nor a single letter")
    return int(text)
