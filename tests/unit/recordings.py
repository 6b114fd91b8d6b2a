"""Answers of hosts to the probes of facts, from ``tests/data/facts``."""

from __future__ import annotations

import re
from pathlib import Path

from provision.facts import Facts, parse
from provision.probe import Output

FOLDER = Path(__file__).parent.parent / "data" / "facts"
SYSTEMS = sorted(path.stem for path in FOLDER.glob("*.txt"))


def recorded(system: str) -> dict[str, Output]:
    """What a host of a system answers, by the name of the probe."""
    text = (FOLDER / f"{system}.txt").read_text("utf-8")
    _, *rest = re.split(r"^== (.*)\n", text, flags=re.MULTILINE)
    return {name: Output(0, body.encode()) for name, body in zip(rest[::2], rest[1::2], strict=True)}


def facts_of(system: str) -> Facts:
    """The facts of a host of a system."""
    return parse(recorded(system))
