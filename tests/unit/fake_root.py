"""A folder that stands for the root of a host: scripts run with their absolute paths moved below it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from provision.data import data
from provision.plan.plan import STEPS
from provision.probe import Output
from provision.shell import assembled

MOVED = re.compile(
    r"(?<![\w/}.])/(?=(?:lib/modules|boot|var/lib|sys|proc|etc|usr/src|usr/bin/nvidia)/|dev/(?:nvidia|\$))"
)
"""The first slash of a path that lies in the folder; programs and ``/dev/null`` stay the machine's."""


@dataclass(frozen=True)
class FakeRoot:
    """A host's root with the files that a test puts there, and programs that tell how they were called.

    :ivar shell: the program that is ``/bin/sh``.
    """

    folder: Path
    shell: str = "sh"

    def write(self, path: str, text: str = "") -> Path:
        """A file with its folders."""
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def program(self, name: str, body: str = "") -> None:
        """A program that notes its arguments in :attr:`calls` and then does ``body``."""
        note = f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>{self.folder}/calls\n'
        self.write(f"programs/{name}", note + self.moved(body) + "\n").chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """How programs were called, in order."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def moved(self, text: str) -> str:
        """Sh text whose paths lie below the folder."""
        return MOVED.sub(f"{self.folder}/", text)

    def sh(self, script: str) -> Output:
        """Run sh text with nothing but basic programs besides those of the test."""
        ran = subprocess.run(
            [self.shell, "-c", self.moved(script)],
            capture_output=True,
            check=False,
            timeout=60,
            env={
                "PATH": f"{self.folder}/programs:{os.environ['PATH']}",
                "LC_ALL": "C.UTF-8",
                "root": str(self.folder),
            },
        )
        return Output(ran.returncode, ran.stdout, ran.stderr)

    def words(self, script: str) -> Output:
        """Run sh text after the functions of steps, those of all roles among them."""
        (self.folder / "spool").mkdir(exist_ok=True)
        (self.folder / "spool/pid").touch()
        folder = data("templates")
        files = [str(file.relative_to(folder)) for file in sorted(folder.glob("*/*.sh"))]
        head = assembled(STEPS, *files)
        return self.sh(f"run={self.folder}/spool\n{head}PATH={self.folder}/programs:$PATH\n{script}")
