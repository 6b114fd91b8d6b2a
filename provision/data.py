"""Where the files are that run with the package: in a clone beside it, in an installed package inside it.

And how the user's files are named, and written for their owner only.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from pathlib import Path
from tempfile import mkstemp

_PACKAGE = Path(__file__).resolve().parent
_IN_CLONE = {"suite": "tests/verify", "role_suite": "tests/roles"}

CLONE = None if (_PACKAGE / "templates").is_dir() else _PACKAGE.parent
"""The clone that the package runs from, an editable install too; None where it is installed from a wheel."""


MOST = 256 << 20
"""Bytes of a file that a user names."""


def data(name: str) -> Path:
    """The folder ``templates``; ``suite``: the tests that verify hosts; ``role_suite``: those of roles."""
    return _PACKAGE / name if CLONE is None else CLONE / _IN_CLONE.get(name, name)


@functools.cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of a table of the package by the names of its columns: ``gpu/advisories.tsv``.

    Lines that begin with ``#`` are remarks; then comes the line of names. Tabs divide the columns.
    """
    lines = (_PACKAGE / name).read_text("utf-8").splitlines()
    head, *rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return tuple(dict(zip(head, row, strict=True)) for row in rows)


def remarks(name: str) -> str:
    """The lines of a table that begin with ``#``."""
    lines = (_PACKAGE / name).read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def at_home(path: str) -> Path:
    """``path`` with home folders in the place of ``~`` and ``~USER``; as it is where there are none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path's raises


def base_folder(variable: str, otherwise: str) -> Path:
    """A folder of the XDG Base Directory Specification, which says to ignore a relative path.

    :param variable: the variable that may name it: ``XDG_STATE_HOME``.
    """
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else at_home(otherwise)


class EndlessError(OSError):
    """A file of which the end may never come."""


def require_end(file: Path) -> None:
    """Refuse pipes and devices, which a reader may wait for without limit.

    A pipe without a name has its writer already, as the shell's ``<(…)`` and ``… |`` make it.

    :raises EndlessError: naming it.
    :raises OSError: if it cannot be looked at.
    """
    mode = file.stat().st_mode
    nameless = stat.S_ISFIFO(mode) and not Path(os.path.realpath(file)).exists()
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or nameless or file.samefile(os.devnull)):
        raise EndlessError(errno.EINVAL, "not a regular file", str(file))


def content(file: Path) -> bytes:
    """What a user's file holds.

    :raises OSError: if it cannot be read, may never end, or holds more than :data:`MOST`.
    """
    require_end(file)
    with file.open("rb") as there:
        found = there.read(MOST + 1)
    if len(found) > MOST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    return found


def beside(file: Path, content: bytes) -> Path:
    """A file beside another one that only its owner can read; nothing is left if it cannot be written."""
    descriptor, name = mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as beside:
            beside.write(content)
            beside.flush()
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)
