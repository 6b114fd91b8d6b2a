"""The command line: tasks, their arguments, and what people see."""

from __future__ import annotations

import sys
from pathlib import Path

COMMAND = "gpu-provision"
"""The installed command; the name of the distribution, too."""


def program_name() -> str:
    """What the running program is called by: the installed command, the module, or ``inv`` in a clone."""
    called = Path(sys.argv[0])
    if called.stem == COMMAND:
        return COMMAND
    return "python -m provision" if called.parts[-2:] == ("provision", "__main__.py") else "inv"
