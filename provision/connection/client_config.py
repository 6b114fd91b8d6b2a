"""ssh_config(5): the user's file, followed by the system's, with what they include."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko

from provision.data import at_home, content
from provision.errors import InventoryError, Location

DEEPEST = 16
"""Files that include each other in a row (OpenSSH, readconf.c: READCONF_MAX_DEPTH)."""

_ALL = "Host *"
_BLOCK = re.compile(r"\s*(host|match)\b", re.IGNORECASE)


_ALONE = {"all", "canonical", "final"}
_CRITERIA = _ALONE | {"exec", "host", "localuser", "originalhost", "user"}
"""What a Match line may ask for; paramiko lets any other word match all hosts."""


class SshConfig(paramiko.SSHConfig):
    """A client configuration that knows where its lines stand."""

    lines: Sequence[tuple[str, Location]] = ()

    def place(self, name: str, keyword: str) -> Location | None:
        """Where the value stands that the host ``name`` has of a keyword, which is in lower case."""
        numbered = (
            f"{keyword} {number}" if _setting(line.strip(), where)[0] == keyword else line
            for number, (line, where) in enumerate(self.lines)
        )
        number = paramiko.SSHConfig.from_text("\n".join(numbered)).lookup(name).get(keyword)
        return None if number is None else self.lines[int(number)][1]


def ssh_config() -> SshConfig:
    """Return the parsed client configuration.

    :raises InventoryError: naming file and line, where a line cannot be read or an Include be honoured.
    """
    lines: list[tuple[str, Location]] = []
    for file in (at_home("~/.ssh/config"), Path("/etc/ssh/ssh_config")):
        try:
            lines += [(_ALL, Location(str(file))), *_lines(file, file.parent)]
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # as ssh(1) does
        except OSError as error:
            message, hint = f"cannot be read: {error.strerror}", "it must be a file; see ssh_config(5)"
            raise InventoryError(message, where=Location(str(file)), hint=hint) from None
    config = SshConfig.from_text("\n".join(line for line, _ in lines))
    config.lines = lines
    return config


def _lines(file: Path, folder: Path, depth: int = 0) -> Iterator[tuple[str, Location]]:
    """Yield the lines of a file and of those that it includes, each with its place.

    :param folder: where files are that are named without a folder.
    """
    block = _ALL
    for number, line in enumerate(content(file).decode(errors="surrogateescape").split("\n"), 1):
        where = Location(str(file), number)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, value = _setting(line.strip(), where)
        if key != "include":
            if _BLOCK.match(line):
                _refuse_unreadable_block(key, value, where)
                block = line
            yield line, where
            continue
        if depth >= DEEPEST:
            raise InventoryError(f"more than {DEEPEST} files include each other", where=where)
        included = [
            there for path in _paths(value, folder, where) for there in _included(path, folder, depth, where)
        ]
        yield from included
        if any(_BLOCK.match(text) for text, _ in included):
            if block.split() != _ALL.split():
                raise InventoryError(
                    "Include in a block is not supported for files that have blocks of their own",
                    where=where,
                    hint="move the Include to the top of the file",
                )
            yield block, where


def _refuse_unreadable_block(key: str, value: str, where: Location) -> None:
    """Refuse a Host or Match line that means nothing, or that paramiko would take for another."""
    line, hint = f"{key.title()} {value[:100]}", "see ssh_config(5)"
    try:
        paramiko.SSHConfig.from_text(f"{key} {value}")
    except (paramiko.ssh_exception.ConfigParseError, ValueError) as error:  # an open quote
        raise InventoryError(f"{line}: {error}", where=where, hint=hint) from None
    words = iter(shlex.split(value) if key == "match" else ())
    for word in words:
        criterion = word.removeprefix("!")
        if criterion not in _CRITERIA:
            hint = f"known are, in lower case: {', '.join(sorted(_CRITERIA))}"
            raise InventoryError(f"{line}: {criterion!r} is not supported", where=where, hint=hint)
        if criterion not in _ALONE:
            next(words)


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


def _included(path: Path, folder: Path, depth: int, where: Location) -> list[tuple[str, Location]]:
    try:
        return list(_lines(path, folder, depth + 1))
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = "name files that can be read; see ssh_config(5)"
        raise InventoryError(f"Include {path}: {error.strerror}", where=where, hint=hint) from None
