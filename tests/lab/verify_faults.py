"""Single faults of a serving host: how each is made, which check names it, and how it is mended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    :ivar breaks: shell text that makes it so on a healthy host.
    :ivar check: the title of the one check that fails or warns.
    :ivar says: a regular expression that its message holds.
    :ivar mends: shell text that makes it right again.
    :ivar settles: seconds until the host is healthy after that.
    """

    breaks: str
    check: str
    says: str
    mends: str
    settles: float = 0.0


FAULTS: dict[str, Fault] = {}
