"""Control groups: how the lab knows, and ends, every process that it started.

A process cannot leave its group by forking or by losing its parent, so one write to ``cgroup.kill`` ends a
host or the whole lab, whatever happened before (Linux 5.14, cgroups(7)).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.errors import ProvisionError, UsageError

ENTER = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
"""Shell text that moves itself into the group ``$0`` and becomes the program in its arguments."""


def _mounted(kind: str, option: str = "") -> Path | None:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, folder, found, options, *_ = line.split(" ")
        if found == kind and (not option or option in options.split(",")):
            return Path(folder)
    return None


def lab_group(name: str) -> Cgroup:
    """The group that holds every process of one lab."""
    unified = _mounted("cgroup2")
    if unified is None:
        raise UsageError(
            "the lab needs control groups of version 2", hint="mount -t cgroup2 none /sys/fs/cgroup"
        )
    return Cgroup(f"provision-{name}", unified, _mounted("cgroup", "name=systemd"))


@dataclass(frozen=True)
class Cgroup:
    """One control group.

    :param name: its path below the root of the hierarchy.
    :param unified: where version 2 is mounted.
    :param named: where systemd's own version 1 hierarchy is mounted, on machines that still have it;
        systemd-nspawn mirrors its groups there.
    """

    name: str
    unified: Path
    named: Path | None = None

    @property
    def path(self) -> Path:
        return self.unified / self.name

    def child(self, name: str) -> Cgroup:
        return Cgroup(f"{self.name}/{name}", self.unified, self.named)

    def create(self) -> None:
        """Make the group, and let it and those below it have every controller that the machine can give."""
        folder = self.unified
        for name in self.name.split("/"):
            controllers = (folder / "cgroup.controllers").read_text(encoding="ascii").split()
            wanted = " ".join(f"+{controller}" for controller in controllers)
            if wanted:
                (folder / "cgroup.subtree_control").write_text(wanted, encoding="ascii")
            folder /= name
            folder.mkdir(exist_ok=True)

    def pids(self) -> list[int]:
        """Every process in the group and below it."""
        found: list[int] = []
        for procs in self.path.rglob("cgroup.procs"):
            # A group can go while we walk; the kernel then answers ENOENT or ENODEV.
            with contextlib.suppress(OSError):
                found += map(int, procs.read_text(encoding="ascii").split())
        with contextlib.suppress(OSError):
            found += map(int, (self.path / "cgroup.procs").read_text(encoding="ascii").split())
        return sorted(set(found))

    def cpu_seconds(self) -> float:
        """CPU time that its processes, and those below it, have used since it was created."""
        stat = dict(line.split() for line in (self.path / "cpu.stat").read_text("ascii").splitlines())
        return int(stat["usage_usec"]) / 1e6

    def spawn(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """Start a program in the group, detached from us; its output is appended to ``log``."""
        self.create()
        with log.open("ab") as sink:
            # It forks after it is in the group, so the group is never seen empty; init inherits and reaps it.
            subprocess.run(
                ["sh", "-c", ENTER, str(self.path), "setsid", "--fork", *argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=None if env is None else {**os.environ, **env},
                check=True,
            )

    def end(self, seconds: float = 10) -> None:
        """Kill everything in the group and remove it; does nothing where it does not exist.

        :raises ProvisionError: a process did not die within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while self.path.exists():
            with contextlib.suppress(OSError):
                (self.path / "cgroup.kill").write_text("1", encoding="ascii")
            if not self.pids():
                _remove(self.path)
            elif time.monotonic() > deadline:
                raise ProvisionError(f"processes {self.pids()} of the lab do not die")
            time.sleep(0.02)
        if self.named is not None:
            _remove(self.named / self.name)


def _remove(top: Path) -> None:
    """Remove a group and those below it; one that is still busy is left for the next try."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
