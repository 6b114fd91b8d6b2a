"""What becomes of an image on a host, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["ok", "minor-version", "forward-compat", "fail", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """Whether a driver and a GPU run an image.

    :ivar reason: one sentence without a full stop.
    :ivar hint: what can be done; empty where there is nothing to do.
    """

    kind: Kind
    reason: str
    hint: str = ""
