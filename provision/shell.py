"""The product's shell text: files below ``templates/``, with the functions that probes and steps call.

A file is about one topic and holds constants and functions. A line ``# needs: shell/files.sh`` names the
files whose functions it calls. A constant is a line ``name=value`` or ``name='several words'`` at the left
margin: it is written there once, and Python reads it with :func:`constant`.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shlex

from provision.errors import RenderError
from provision.render import template_path

_NEEDS = re.compile(r"^# needs: (.+)$", re.MULTILINE)
_FUNCTION = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*) *\(\)", re.MULTILINE)
_COMMENT = re.compile(r"^(#(?! shellcheck ).*)?\n", re.MULTILINE)
_CONSTANT = re.compile(r"^([a-z_]+)=(\S+|'[^'\n]*')$", re.MULTILINE)


@functools.cache
def text_of(file: str) -> str:
    """The text of one shell file.

    :raises RenderError: if there is no such file.
    """
    return template_path(file).read_text("utf-8")


@functools.cache
def constants(file: str) -> dict[str, str]:
    """The constants of one shell file by name."""
    return {name: "".join(shlex.split(value)) for name, value in _CONSTANT.findall(text_of(file))}


def constant(file: str, name: str) -> str:
    """The value of a constant of a shell file.

    :raises KeyError: if the file has no such constant.
    """
    return constants(file)[name]


def with_needs(*files: str, _above: tuple[str, ...] = ()) -> tuple[str, ...]:
    """These files and all that they need, each once, and each after those that it needs.

    :raises RenderError: if files need each other, or one is not there.
    """
    found: dict[str, None] = {}
    for file in files:
        if file in _above:
            raise RenderError(f"shell files need each other: {' → '.join((*_above, file))}")
        for needed in _NEEDS.findall(text_of(file)):
            found |= dict.fromkeys(with_needs(*needed.split(), _above=(*_above, file)))
        found[file] = None
    return tuple(found)


def assembled(*files: str) -> str:
    """The functions and constants of these files and of all that they need, without comments.

    :raises RenderError: if a file is not there, files need each other, or two have the same function.
    """
    needed = with_needs(*files)
    homes: dict[str, str] = {}
    for file in needed:
        for name in _FUNCTION.findall(text_of(file)):
            if (home := homes.setdefault(name, file)) != file:
                raise RenderError(
                    f"{file}: the function {name} is in {home} already", hint="give it another name"
                )
    return "".join(_COMMENT.sub("", text_of(file)) for file in needed)


@functools.cache
def digest(*files: str) -> str:
    """Equal for the same functions and constants."""
    return hashlib.sha256(assembled(*files).encode()).hexdigest()
