"""The driver's kernel modules on disk, for the running kernel and for the one that the host boots next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.probe import Output, Probe, words
from provision.resource import Change, Planned, Single
from provision.resources.packages.sets import moves_of

BUILD = "driver/build.sh"
"""File of the steps that build modules, and explain builds that failed."""

QUESTION = Probe("driver-modules", "modules_on_disk", ("driver/modules_on_disk.sh",), in_place=True)
"""Asks which modules both kernels have, and what DKMS has installed for them."""


@dataclass(frozen=True)
class KernelModules:
    """What one kernel has.

    :ivar version: of the driver's module that modprobe finds; empty without one, ``?`` if it tells none.
    :ivar headers: whether it could be built.
    :ivar built: ``NAME/VERSION`` of what DKMS has installed for it.
    """

    kernel: str
    version: str
    headers: bool = True
    built: tuple[str, ...] = ()


def parse(answer: Output) -> tuple[KernelModules, ...]:
    """Read the answer to :data:`QUESTION`: the running kernel, then the newest if that is another one.

    :raises ValueError: if the answer is not about one or two kernels.
    """
    rows = [line.split(" ") for line in answer.out.splitlines()]
    if len(rows) not in (1, 2) or any(len(row) < 3 for row in rows):
        raise ValueError(f"not a line for one or two kernels: {answer.err.strip()}")
    return tuple(
        KernelModules(row[0], row[1].removeprefix("-"), row[2] == "yes", tuple(row[3:])) for row in rows
    )


@dataclass(frozen=True)
class DriverModules(Single[tuple[KernelModules, ...]]):
    """The running and the newest installed kernel both have the driver's module.

    :ivar version: of the driver, without packaging suffix, exact or a glob.
    :ivar packages: names of the packages whose installation builds modules.
    :ivar prebuilt: beginning of the names of packages that bring ready modules for one kernel each, before
        its release (Ubuntu: ``linux-modules-nvidia-580-server-open``). Empty for DKMS.
    :ivar running: release of the running kernel.
    """

    version: str
    packages: tuple[str, ...]
    prebuilt: str = ""
    running: str = ""
    kind: ClassVar[str] = "driver-modules"
    shell = (BUILD,)

    def question(self) -> Probe:
        """Read folders; dkms itself is not asked."""
        return QUESTION

    def read(self, answer: Output) -> tuple[KernelModules, ...]:
        return parse(answer)

    def bare(self) -> tuple[KernelModules, ...]:
        return (KernelModules(self.running, ""),)

    def change(self, state: tuple[KernelModules, ...], planned: Planned) -> Change | None:
        """Build or install what is missing. After its packages it is a proof, as they build modules too."""
        moves = planned.positions(moves_of(self.packages))
        headers = planned.positions(("kernel-headers", "packages:kernel-headers"))
        # A kernel without headers is tried only where they come now, or if the host boots it next.
        lacking = [
            k
            for k in state
            if not self._right(k) and (self.prebuilt or k.headers or headers or k is state[-1])
        ]
        if not moves and not lacking:
            return None
        wanted = words(self.prebuilt or "dkms", self.version, *(k.kernel for k in state))
        said = " and ".join(k.kernel for k in (state if moves else lacking))
        return Change(
            resource=self.id,
            action="build",
            summary=f"kernel modules {self.version} for {said}"
            + (" if the packages have not built them" if moves else ""),
            reason="its packages change" if moves else "; ".join(self._wrong(k) for k in lacking),
            done=f"modules_are_there {wanted}",
            script=f"build_modules {wanted}",
        )

    def notes(self, state: tuple[KernelModules, ...], planned: Planned) -> Sequence[str]:
        """What is missing and cannot be mended."""
        if self.change(state, planned):
            return ()
        return tuple(self._wrong(k) for k in state if not self._right(k))

    def _right(self, kernel: KernelModules) -> bool:
        """Whether a kernel has the module in the right version, and DKMS says so where it built it.

        DKMS may say ``installed`` and have kept a file of another version that it found in the same place.
        """
        books = [built.rpartition("/")[2] for built in kernel.built]
        return (kernel.version == "?" or fnmatchcase(kernel.version, self.version)) and (
            not books or any(fnmatchcase(version, self.version) for version in books)
        )

    def _wrong(self, kernel: KernelModules) -> str:
        if not kernel.version:
            return f"kernel {kernel.kernel} has no module of the driver"
        books = f" (dkms: {', '.join(kernel.built)})" if kernel.built else ""
        return f"kernel {kernel.kernel} has the driver's module {kernel.version}{books}"
