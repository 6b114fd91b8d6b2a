"""What a failed command's output means: the table of all known messages, and the questions to it."""

from __future__ import annotations

import re

from provision.causes.containers import CONTAINERS
from provision.causes.driver import DRIVER
from provision.causes.packages import PACKAGES
from provision.probe import Output

KNOWN_MESSAGES = (*DRIVER, *PACKAGES, *CONTAINERS)
"""In order: the first row that matches counts."""

_NO_GPU = (
    "the container was started without a GPU",
    "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES",
)


def hint_for(text: str) -> str | None:
    """The hint for the output of a failed command, or None."""
    return next((row.hint for row in KNOWN_MESSAGES if re.search(row.pattern, text)), None)


def cause(output: Output) -> tuple[str, str | None]:
    """Why a command failed, in a few words, and a hint where one is known."""
    text = f"{output.out}\n{output.err}"
    if output.exit_code == 137:
        return "it was killed: out of memory, or over its time limit", "on the host: dmesg | tail"
    if output.exit_code == 124:
        return (
            "it did not answer in time",
            "on the host: dmesg | tail; a GPU that fell off the bus (Xid 79) blocks the programs that use it",
        )
    for row in KNOWN_MESSAGES:
        if row.cause and re.search(row.pattern, text):
            return row.cause, row.hint
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "it printed nothing"
    return f"exit {output.exit_code}: {last}", hint_for(text)


def cause_inside(output: Output) -> tuple[str, str | None]:
    """As :func:`cause`, for a program in a container: one that is missing there was not given to it."""
    return _NO_GPU if output.exit_code == 127 else cause(output)
