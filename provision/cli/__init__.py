"""The command line: tasks, their arguments, and what people see."""

from __future__ import annotations

import sys
from pathlib import Path

COMMAND = "gpu-provision"
"""The installed command; the name of the distribution, too."""


def program_name(argv0: str = "") -> str:
    """What the program is called by: the installed command, the module, or a clone's ``inv``.

    In another folder than the clone it is a whole path; ``inv`` alone is Invoke's in the virtual environment.

    :param argv0: how it was started; empty for the running program.
    """
    called = Path(argv0 or sys.argv[0])
    if called.stem == COMMAND:
        return COMMAND
    if called.name == "tasks.py":
        clone = called.absolute().parent
        return "./inv" if clone == Path.cwd() else str(clone / "inv")
    return "python -m provision" if called.parts[-2:] == ("provision", "__main__.py") else "inv"
