"""How a check ends other than well, as exceptions with a sentence for people."""

from __future__ import annotations

from typing import NoReturn


class Finding(AssertionError):  # noqa: N818  # a finding is an outcome, not an accident
    """A check has found something.

    :param message: one sentence with the cause, without a final full stop. ``{host}`` stands for the host.
    :param hint: what to do about it; ``{host}`` stands for the host here too.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Concern(Finding):
    """It works, and somebody should know something about it."""


class Missing(Finding):
    """What many checks stand on is not there. The first check that meets it fails, the others are skipped.

    :param base: names what is missing, the same wherever it is met: ``nvidia-smi``, ``dockerd``.
    """

    def __init__(self, base: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.base = base


def fail(message: str, hint: str | None = None) -> NoReturn:
    """End the check: failed."""
    raise Finding(message, hint)


def warn(message: str, hint: str | None = None) -> NoReturn:
    """End the check: passed with a warning."""
    raise Concern(message, hint)
