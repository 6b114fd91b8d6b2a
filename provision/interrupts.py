"""Ctrl-C while the program loads its modules, reads its arguments, and ends: exit code 130, no traceback."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator


def _end(*_: object) -> None:
    os._exit(130)


def end_quietly() -> None:
    """End at an interrupt from now on; where interrupts are ignored, as in the background, they stay so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise KeyboardInterrupt meanwhile, as Python does: work that was begun has something to say."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)
