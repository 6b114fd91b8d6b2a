"""What became of a host, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from provision.errors import HostError
from provision.resource import Change

Status = Literal["ok", "changed", "failed", "unreachable", "skipped"]
"""Ansible's words. ``changed``: changes were made and a fresh plan is empty; ``skipped``: never started."""


@dataclass(frozen=True)
class Result:
    """What became of a host.

    :ivar right: how many resources were right before the run.
    :ivar changes: the changes that were made, or with ``check`` would be made.
    :ivar notes: what the operator should know and no change will mend.
    :ivar not_run: steps of a plan that failed which never ran.
    :ivar reboots: how often the host was rebooted.
    :ivar seconds: that were spent on it; waiting for an answer or for other hosts does not count.
    :ivar connects: sessions that were opened.
    :ivar execs: commands that were run over them.
    """

    host: str
    status: Status
    right: int = 0
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    error: HostError | None = None
    not_run: int = 0
    seconds: float = 0.0
    reboots: int = 0
    connects: int = 0
    execs: int = 0


@dataclass(frozen=True)
class Doing:
    """What is being done with a host from now on, or how that ended.

    :ivar phase: a word such as ``planning``, or a :data:`Status`.
    :ivar steps: how many changes there are to make, or were made.
    """

    phase: str
    steps: int = 0
