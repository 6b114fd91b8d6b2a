"""Single faults of a serving host: how each is made, which check names it, and how it is mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import TypeAdapter


@dataclass(frozen=True)
class Gpus:
    """What the stand-ins are told.

    :ivar faults: names of faults, as ``LabHost.break_gpus`` takes them.
    :ivar fields: what nvidia-smi answers for these fields of every GPU.
    :ivar left: how many GPUs are left on the bus.
    """

    faults: Sequence[str] = ()
    fields: Mapping[str, int | str] = field(default_factory=dict)
    left: int | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    :ivar breaks: shell text that makes it so on a healthy host.
    :ivar check: the title of the one check that fails or warns.
    :ivar says: a regular expression that its message holds.
    :ivar mends: shell text that makes it right again; ``provision``: the next run does.
    :ivar plan: a regular expression that a change of the plan, or its refusal, holds.
    :ivar by_hand: whether the plan speaks of it, and a run cannot mend it.
    :ivar fleeting: whether looking mends it, so that it is made again before the second look.
    :ivar alone: why only verify speaks of it. A fault that passes by itself has neither this nor ``plan``.
    """

    breaks: str
    check: str
    says: str
    mends: str
    gpus: Gpus | None = None
    plan: str = ""
    by_hand: bool = False
    fleeting: bool = False
    alone: str = ""


FAULTS = TypeAdapter(dict[str, Fault]).validate_python(
    yaml.safe_load(Path(__file__).with_suffix(".yml").read_text("utf-8"))
)
