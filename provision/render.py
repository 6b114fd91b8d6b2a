"""Templates in, text out; every value quoted for the place where it lands."""

from __future__ import annotations

import functools
import re
import shlex
import traceback
from pathlib import Path
from typing import Any

import jinja2

from provision.data import data
from provision.errors import RenderError

_FOLDERS: list[Path] = []
"""Folders of sites' roles, whose templates are found like our own."""

_LAST_OF_PLANES = "".join(chr(plane << 16 | code) for plane in range(17) for code in (0xFFFE, 0xFFFF))
_NO_CHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")
"""What Unicode does not have for text: halves of surrogate pairs, and the 66 noncharacters."""


def add_folder(folder: Path) -> None:
    """Find the templates of a site's roles: ``FOLDER/ROLE/NAME`` as ``ROLE/NAME``."""
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)
        _environment.cache_clear()
        template_path.cache_clear()


@functools.cache
def template_path(name: str) -> Path:
    """The file of a template, ours before a site's.

    :raises RenderError: if there is none of this name.
    """
    folders = [data("templates"), *_FOLDERS]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        raise RenderError(f"there is no template {name}", hint=f"looked in {', '.join(map(str, folders))}")
    return found


def systemd_word(value: object) -> str:
    """One argument of an ``Exec…=`` line: no specifier, variable or escape in it is ever expanded.

    Control characters become C escapes, ``%`` and ``$`` are doubled (systemd.service(5), "COMMAND LINES").

    :raises RenderError: for NUL, which no argument can carry, and for what is no character.
    """
    escapes = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    text = _writable(value)
    return '"' + "".join(escapes.get(c, c if c.isprintable() else _utf8_escapes(c)) for c in text) + '"'


def systemd_text(value: object) -> str:
    """Text for a plain setting such as ``Description=``: one line, no specifier expanded."""
    return " ".join(_writable(value).split()).replace("%", "%%").rstrip("\\")


def environment_value(value: object) -> str:
    """A value in a file for ``EnvironmentFile=``: in double quotes, where only four characters are special.

    See systemd.exec(5), "EnvironmentFile="; newlines stay as they are.

    :raises RenderError: for NUL, and for what is no character; systemd then refuses the whole file.
    """
    text = _writable(value)
    return '"' + "".join(f"\\{c}" if c in '\\"`$' else c for c in text) + '"'


def one_line(value: object) -> str:
    """Text of a line as it is, where nothing is quoted: the rest of a line, a remark.

    :raises RenderError: for what would end the line, and for other control characters.
    """
    text = _writable(value)
    if not text.isprintable():
        raise RenderError(f"must be one line of printable characters: {text!r}")
    return text


def shell_word(value: object) -> str:
    """One word of POSIX sh, and of what splits words alike, such as kickstart.

    :raises RenderError: for NUL, which no word can carry, and for what is no character.
    """
    return shlex.quote(_writable(value))


def _writable(value: object) -> str:
    text = str(value)
    if "\0" in text:
        raise RenderError(f"a NUL character cannot be written to such a file: {text!r}")
    if strange := _NO_CHARACTER.search(text):
        raise RenderError(
            f"U+{ord(strange[0]):04X} is no character; systemd reads no file that has it: {text!r}"
        )
    return text


def _utf8_escapes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([data("templates"), *_FOLDERS]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # units and shell text, not HTML; quoting is by the filters below
    )
    environment.filters |= {"word": systemd_word, "text": systemd_text, "value": environment_value}
    environment.filters |= {"line": one_line, "sh": shell_word}
    return environment


def render(template: str, **values: Any) -> str:
    """Fill the template with ``values``; its name is its path below ``templates/``.

    :raises RenderError: if the template needs a value that is not given, or is not a template.
    """
    path = template_path(template)
    try:
        return _environment().get_template(template).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"{path}:{error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise RenderError(f"{path}{_line(error, path)}: {error.message}") from error


def _line(error: BaseException, path: Path) -> str:
    """The line of the template in which ``error`` was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    return f":{lines[-1]}" if lines else ""
