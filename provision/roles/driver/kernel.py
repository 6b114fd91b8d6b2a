"""The kernels that count on a host, which are the running one and the newest installed, and their headers.

Modules are built against headers. The running kernel needs them now, and the newest one is what the host
boots next: GRUB sorts by version and starts the newest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.facts import Facts, Family
from provision.probe import Output, Probe, words
from provision.resource import Change, Planned, Single
from provision.resources.packages.sets import moves_of
from provision.resources.reboot import RebootPolicy
from provision.roles.driver.packages.ubuntu import FIRST_SERIES, STAYING
from provision.roles.driver.reboot import USERS, users

HEADERS = "driver/headers.sh"


def headers_of_later_kernels(facts: Facts) -> tuple[str, ...]:
    """The packages that bring the headers of every later kernel of the same flavour with it.

    A running kernel of another system counts as the usual one.
    Sources: the linux-meta packages of Debian and Ubuntu; NVIDIA Driver Installation Guide, RHEL.
    """
    kernel, version = facts.kernel, facts.version
    if facts.os == "debian":
        found = re.search(r"-((cloud-|rt-)?(amd64|arm64)(-16k)?)$", kernel)
        return (f"linux-headers-{found[1] if found else facts.architecture}",)
    if facts.os == "ubuntu":
        found = re.match(r"(\d+\.\d+)\.\d+-\d+-(\w+(-64k)?)$", kernel)
        series, flavour = (found[1], found[2]) if found else (FIRST_SERIES.get(version), "generic")
        late = flavour.removesuffix("-64k") in STAYING and series != FIRST_SERIES.get(version, series)
        return (f"linux-headers-{flavour}{f'-hwe-{version}' if late else ''}",)
    variant = "-uek" if "uek" in kernel else f"-{kernel.partition('+')[2]}" if "+" in kernel else ""
    matched = "-matched" if facts.major != "8" and variant != "-uek" else ""
    return (f"kernel{variant}-devel{matched}", "kernel-headers")


@dataclass(frozen=True)
class Kernel:
    """A kernel of a host.

    :ivar release: as uname(1) says it.
    :ivar package: the package that has its headers, or ready modules for it.
    :ivar ready: whether those are there.
    :ivar packaged: whether a package of the host brought the kernel. Asked only where it is not ready.
    :ivar offered: whether a repository that the host knows has the package; None if its lists are empty.
        Asked only where it is not ready.
    """

    release: str
    package: str
    ready: bool = True
    packaged: bool = True
    offered: bool | None = True

    @property
    def foreign(self) -> bool:
        """Whether it came from elsewhere, so that no repository can be expected to have the package."""
        return not self.packaged and not self.offered


@dataclass(frozen=True)
class Kernels:
    """The running kernel, and the newest one that is installed, which may be the same."""

    running: Kernel
    newest: Kernel

    @property
    def all(self) -> tuple[Kernel, ...]:
        """Each of them once."""
        return (self.running,) if self.running.release == self.newest.release else (self.running, self.newest)

    @property
    def left_behind(self) -> str:
        """Why the newest kernel has to be booted; empty unless the driver can be had for that one only."""
        if (
            self.running.release == self.newest.release
            or self.running.ready
            or self.running.offered is not False
            or not (self.newest.ready or self.newest.offered)
        ):
            return ""
        return (
            f"no repository has {self.running.package} for the running kernel:"
            f" the driver can only be had for {self.newest.release}"
        )

    def named(self, kernel: Kernel) -> str:
        """One of them with what it is."""
        running = kernel.release == self.running.release
        return f"the {'running' if running else 'newest'} kernel {kernel.release}"


def kernels(answer: Output) -> Kernels:
    """Read the answer of ``kernel_states``.

    :raises ValueError: if it is none.
    """
    lines = [line.split(" ") for line in answer.out.splitlines()]
    if len(lines) not in (1, 2) or any(len(line) != 5 for line in lines):
        raise ValueError(f"not a line for one or two kernels: {answer.err.strip()}")
    told = {"yes": True, "no": False, "-": True}  # "-" is not asked, as the kernel is ready
    found = [
        Kernel(release, package, ready == "yes", own != "no", told.get(offered))
        for release, package, ready, own, offered in lines
    ]
    return Kernels(found[0], found[-1])


@dataclass(frozen=True)
class KernelHeaders(Single[Kernels]):
    """The headers of the running and of the newest installed kernel.

    The package that brings those of later kernels (``linux-headers-amd64``) is not its business.

    :ivar running: release of the running kernel.
    """

    family: Family
    running: str = ""
    kind: ClassVar[str] = "kernel-headers"
    shell = ("driver/build.sh",)

    def question(self) -> Probe:
        """Look for what DKMS looks for."""
        return Probe("kernel-headers", words("kernel_states", self.family), (HEADERS,), in_place=True)

    def read(self, answer: Output) -> Kernels:
        return kernels(answer)

    def bare(self) -> Kernels:
        """The running kernel is the only one, and has no headers."""
        name = "kernel-devel" if self.family == "rhel" else "linux-headers"
        kernel = Kernel(self.running, f"{name}-{self.running}", ready=False)
        return Kernels(kernel, kernel)

    def change(self, state: Kernels, planned: Planned) -> Change | None:  # noqa: ARG002
        """Install what is missing and can be had; the running kernel's may be gone where a newer one is."""
        missing = [k for k in state.all if not k.ready and not k.foreign]
        if state.left_behind:
            missing = [k for k in missing if k is not state.running]
        if not missing:
            return None
        return Change(
            resource=self.id,
            action="install",
            summary="install " + " ".join(k.package for k in missing),
            sign="+",
            reason="no headers of " + " and ".join(state.named(k) for k in missing),
            done=f"headers_are_there {words(*(k.release for k in missing))}",
            script=f"install_headers_{self.family} {words(*(k.package for k in missing))}",
        )

    def notes(self, state: Kernels, planned: Planned) -> Sequence[str]:
        """Kernels whose headers cannot be had, as far as that can be told before new packages come."""
        if planned.positions(("packages:kernel-headers",)):
            return ()
        if state.left_behind:
            return (state.left_behind,)
        return tuple(
            f"{state.named(k)} is not a package of this host: its headers cannot be installed"
            for k in state.all
            if not k.ready and k.foreign
        )


@dataclass(frozen=True)
class NewestKernel(Single[tuple[Kernels, bool]]):
    """The newest kernel runs, where the driver's module cannot be had for an older one any more.

    :ivar packages: names of the packages whose move takes a module away that the running kernel has.
    :ivar prebuilt: as in :class:`~provision.roles.driver.modules_on_disk.DriverModules`; empty for DKMS.
    """

    family: Family
    policy: RebootPolicy
    packages: tuple[str, ...] = ()
    prebuilt: str = ""
    kind: ClassVar[str] = "newest-kernel"

    def question(self) -> Probe:
        """Look at headers or ready modules, and for the module of a running kernel that has no headers."""
        ready = [self.prebuilt] if self.prebuilt else []
        return Probe(
            "newest-kernel", words("newest_kernel_states", self.family, *ready), (HEADERS,), in_place=True
        )

    def read(self, answer: Output) -> tuple[Kernels, bool]:
        """Both kernels, and whether the running one has the driver's module although it has no headers."""
        text, mark, _ = answer.stdout.partition(b"module\n")
        return kernels(Output(answer.exit_code, text, answer.stderr)), bool(mark)

    def bare(self) -> tuple[Kernels, bool]:
        kernel = Kernel("", "", ready=False)
        return Kernels(kernel, kernel), False

    def change(self, state: tuple[Kernels, bool], planned: Planned) -> Change | None:
        """Reboot, unless the running kernel has the module and its packages stay as they are."""
        found, has_module = state
        moves = planned.positions(moves_of(self.packages))
        if not found.left_behind or (has_module and not moves):
            return None
        # A driver that works now must not lose its module before the reboot is allowed.
        causes = self.policy.causes if has_module else ()
        return replace(self.policy.change(self.id, found.left_behind, causes=causes), preview=USERS)

    def refine(self, change: Change, answer: Output) -> Change:
        """Say who is in the way."""
        return replace(change, impact=users(answer).impact())
