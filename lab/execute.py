"""Running programs on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from provision.errors import ProvisionError


def execute(
    *argv: str, given: str | None = None, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output.

    :param given: text for its standard input; nothing by default.
    :param env: its whole environment; ours by default.
    :raises ProvisionError: it failed and ``check`` is set; the message carries its last words.
    """
    done = subprocess.run(
        argv,
        input=given if given is not None else "",
        env=None if env is None else dict(env),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if check and done.returncode:
        words = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise ProvisionError(f"`{' '.join(argv[:4])} …` failed with status {done.returncode}: {words}")
    return done
