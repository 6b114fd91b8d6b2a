"""ssh_config(5): the user's file, followed by the system's, with what they include."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import paramiko

from provision.data import at_home, content
from provision.errors import InventoryError, Location

DEEPEST = 16
"""Files that include each other in a row (OpenSSH, readconf.c: READCONF_MAX_DEPTH)."""

_ALL = "Host *"
_BLOCK = re.compile(r"\s*(host|match)\b", re.IGNORECASE)


SshConfig = paramiko.SSHConfig


def ssh_config() -> SshConfig:
    """Return the parsed client configuration.

    :raises InventoryError: naming file and line, where a line cannot be read or an Include be honoured.
    """
    texts = []
    for file in (at_home("~/.ssh/config"), Path("/etc/ssh/ssh_config")):
        try:
            texts.append("\n".join(_lines(file, file.parent)))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # as ssh(1) does
        except OSError as error:
            message, hint = f"cannot be read: {error.strerror}", "it must be a file; see ssh_config(5)"
            raise InventoryError(message, where=Location(str(file)), hint=hint) from None
    try:
        return paramiko.SSHConfig.from_text(f"\n{_ALL}\n".join(texts))
    except (paramiko.ssh_exception.ConfigParseError, ValueError) as error:  # an open quote
        raise InventoryError(f"ssh_config cannot be read: {error}", hint="see ssh_config(5)") from None


def _lines(file: Path, folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a file and of those that it includes.

    :param folder: where files are that are named without a folder.
    """
    block = _ALL
    for number, line in enumerate(content(file).decode(errors="surrogateescape").split("\n"), 1):
        where = Location(str(file), number)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, value = _setting(line.strip(), where)
        if key != "include":
            block = line if _BLOCK.match(line) else block
            yield line
            continue
        if depth >= DEEPEST:
            raise InventoryError(f"more than {DEEPEST} files include each other", where=where)
        included = [
            text for path in _paths(value, folder, where) for text in _included(path, folder, depth, where)
        ]
        yield from included
        if any(map(_BLOCK.match, included)):
            if block.split() != _ALL.split():
                raise InventoryError(
                    "Include in a block is not supported for files that have blocks of their own",
                    where=where,
                    hint="move the Include to the top of the file",
                )
            yield block


def _setting(line: str, where: Location) -> tuple[str, str]:
    found = re.match(paramiko.SSHConfig.SETTINGS_REGEX, line)
    if not found:
        raise InventoryError(f"this line cannot be read: {line[:100]}", where=where, hint="see ssh_config(5)")
    return found[1].lower(), found[2]


def _paths(value: str, folder: Path, where: Location) -> list[Path]:
    try:
        patterns = shlex.split(value)
    except ValueError as error:
        raise InventoryError(f"Include {value}: {error}", where=where, hint="see ssh_config(5)") from None
    if odd := next((pattern for pattern in patterns if "%" in pattern or "${" in pattern), None):
        raise InventoryError(f"Include {odd}: tokens and variables are not supported", where=where)
    names = [str(folder / at_home(pattern)) for pattern in patterns]
    return [Path(path) for name in names for path in sorted(glob.glob(name))]  # noqa: PTH207  # of any root


def _included(path: Path, folder: Path, depth: int, where: Location) -> list[str]:
    try:
        return list(_lines(path, folder, depth + 1))
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = "name files that can be read; see ssh_config(5)"
        raise InventoryError(f"Include {path}: {error.strerror}", where=where, hint=hint) from None
