"""Things that are made once for a state of their sources, and shared by every lab on this machine."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_SECONDS = 3600
"""A lab that is starting may still read what a change of the sources has just replaced."""


def made_once(folder: Path, digest: str, make: Callable[[Path], Path]) -> Path:
    """``folder/digest``, made when it is not there; two labs that start at once wait for each other.

    :param make: gets an empty directory to work in and returns the finished directory inside it.
    """
    target = folder / digest
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
                make(Path(scratch)).rename(target)
            _prune(target)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prune(kept: Path) -> None:
    limit = time.time() - KEPT_SECONDS
    for other in kept.parent.iterdir():
        if other != kept and other.is_dir() and other.stat().st_mtime < limit:
            shutil.rmtree(other)
