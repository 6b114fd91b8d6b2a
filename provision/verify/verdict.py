"""How a check ends other than well: three functions that a test calls, each with a sentence for people."""

from __future__ import annotations

from typing import NoReturn

import pytest


class Finding(AssertionError):  # noqa: N818  # a finding is an outcome, not an accident
    """A check has found something.

    :param message: one sentence with the cause, without a final full stop.
    :param hint: what to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Concern(Finding):
    """It works, and somebody should know something about it."""


def fail(message: str, hint: str | None = None) -> NoReturn:
    """End the check: failed."""
    raise Finding(message, hint)


def warn(message: str, hint: str | None = None) -> NoReturn:
    """End the check: passed with a warning."""
    raise Concern(message, hint)


def skip(reason: str) -> NoReturn:
    """End the check: it does not apply, or cannot be answered, for a reason."""
    pytest.skip(reason)
