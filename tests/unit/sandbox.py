"""A machine for one run of a script: this one, with folders of its own where a run writes to.

The script runs as root in a mount namespace: what it does to ``/run``, ``/var/lib`` and ``/var/backups``
lands below a temporary folder. Where that cannot be had, the tests are skipped and say so.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.plan.backups import KEPT, Backups
from provision.plan.declared import Declared
from provision.plan.plan import Plan, plan, probes, states
from provision.plan.script import Event, parse_event, script_of
from provision.probe import Output, words
from provision.resource import AnyResource
from tests.unit.examples import script_of as text_of

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
"""What stands behind ``/bin/sh`` on Debian and Ubuntu, and on RHEL."""

RUN = "20260102T030405Z-abcdef"
MOUNTS = {"run": "/run", "lib": "/var/lib", "backups": "/var/backups"}


def _unshare() -> list[str]:
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *root]


@functools.cache
def missing() -> str:
    """Why there can be no sandbox here, or nothing."""
    if shutil.which("unshare") is None:
        return "unshare is not installed (package util-linux)"
    tried = subprocess.run(
        [*_unshare(), "mount", "--bind", "/tmp", "/mnt"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"no mount namespaces here: {tried.stderr.strip()}"


@dataclass(frozen=True)
class Sandbox:
    """A folder that holds what a script writes to the folders of :data:`MOUNTS`.

    :ivar shell: the program that is ``/bin/sh``.
    """

    folder: Path
    shell: str

    @staticmethod
    def make(folder: Path, shell: str) -> Sandbox:
        """Make the folders; skip the test where there can be no sandbox."""
        if reason := missing():
            pytest.skip(reason)
        for name in MOUNTS:
            (folder / name).mkdir(exist_ok=True)
        return Sandbox(folder, shell)

    @property
    def spool(self) -> Path:
        """The folder of the run."""
        return self.folder / "run" / "provision" / RUN

    @property
    def owed(self) -> set[str]:
        """Names of the notes that handlers are owed."""
        folder = self.folder / "lib" / "provision" / "owed"
        return {note.name for note in folder.iterdir()} if folder.is_dir() else set()

    def backup_of(self, path: Path) -> Path:
        """Where the run keeps what was at ``path``."""
        return self.folder / "backups" / "provision" / RUN / str(path).lstrip("/")

    def sh(self, script: str) -> Output:
        """Run sh text as root; every ``/bin/sh`` in it is the shell of this sandbox."""
        shell = shutil.which(self.shell)
        mounts = [words("mount", "--bind", str(self.folder / name), at) for name, at in MOUNTS.items()]
        mounts.append(f'mount --bind {shell} "$(readlink -f /bin/sh)"')
        (self.folder / "script").write_text(script, "utf-8")
        start = " && ".join([*mounts, words("exec", "/bin/sh", str(self.folder / "script"))])
        ran = subprocess.run(
            [*_unshare(), str(shell), "-c", start],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        return Output(ran.returncode, ran.stdout, ran.stderr)

    def plan(self, *resources: AnyResource) -> Plan:
        """Ask this machine for the states of resources, and plan."""
        declared = [Declared("test", resource) for resource in resources]
        answers = {probe.name: self.sh(text_of(probe)) for probe in probes(declared)}
        return plan("here", declared, states("here", declared, answers))

    def apply(self, planned: Plan, backups: Backups = KEPT) -> list[Event]:
        """Run the script of a plan in the foreground; return its events."""
        output = self.run(planned, backups)
        assert (output.exit_code, output.err) == (0, ""), output
        return self.events()

    def run(self, planned: Plan, backups: Backups = KEPT) -> Output:
        """Run the script of a plan in the foreground, however it ends."""
        self.spool.mkdir(parents=True, exist_ok=True)
        (self.folder / "run" / "provision" / "lock").write_text(f"{RUN}\n")
        script = self.spool / "script"
        script.write_text(script_of(planned, RUN, backups), "utf-8")
        return self.sh(words("/bin/sh", f"/run/provision/{RUN}/script"))

    def events(self) -> list[Event]:
        """What the run told, so far."""
        return [parse_event(line) for line in (self.spool / "events").read_text("ascii").splitlines()]


def kinds(events: Sequence[Event]) -> list[str]:
    """The events in short: ``ok 0``, ``fail 1 guard``, ``end ok``; starts are left out."""
    return [
        " ".join(str(part) for part in (e.kind, e.index if e.index >= 0 else "", e.status) if part != "")
        for e in events
        if e.kind != "start"
    ]
