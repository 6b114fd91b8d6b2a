"""The kernels that count on a host, which are the running one and the newest installed, and their headers.

Modules are built against headers. The running kernel needs them now, and the newest one is what the host
boots next: GRUB sorts by version and starts the newest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from provision.probe import Output, Probe, words
from provision.resource import Change, Planned, Resource
from provision.roles.driver.reboot import USERS, RebootPolicy, Users, users

Family = Literal["debian", "rhel"]

KERNELS = """read -r running </proc/sys/kernel/osrelease
set --
for k in /lib/modules/*/; do
  k=${k%/} k=${k##*/}
  case $k in *+debug) continue ;; esac
  if [ -e "/boot/vmlinuz-$k" ] || [ -e "/lib/modules/$k/vmlinuz" ]; then set -- "$@" "$k"; fi
done
case $# in
  0) newest=$running ;;
  1) newest=$1 ;;
  *) newest=$(printf '%s\\n' "$@" | sort -V | tail -n 1) ;;
esac
kernels=$running
if [ "$newest" != "$running" ]; then kernels="$running $newest"; fi
"""
"""Sh text that sets ``running``, ``newest``, and ``kernels`` to both of them, or to the one that they are.

A folder of modules without a kernel is what DKMS leaves of one that was removed. Debug kernels are booted
only when somebody asks for them.
"""

DRIVER_MODULE = r"""driver_module() {
  find -L "/lib/modules/$1/updates" "/lib/modules/$1/extra" "/lib/modules/$1/weak-updates" \
    "/lib/modules/$1/kernel" -type f -regextype posix-extended -regex \
    '.*/nvidia(-current(-open)?|-tesla(-[0-9]+)?|-legacy-[0-9]+xx)?\.ko(\.[a-z]+)?' -print -quit 2>/dev/null
}
"""
"""A function of sh that prints the file of the driver's module for a kernel, wherever packages put it.

Places: DKMS on Debian and Ubuntu (updates), and on RHEL (extra); RHEL's precompiled and weak modules;
Ubuntu's signed ones (kernel). Debian names the module after the alternative that it is: ``nvidia-current``.
"""

INSTALLED_MODULE = (
    DRIVER_MODULE
    + """installed_module() {
  timeout 10 modinfo -F "$1" nvidia 2>/dev/null ||
    timeout 10 modinfo -F "$1" "$(driver_module "$(uname -r)")" 2>/dev/null
}
"""
)
"""A function of sh that prints a field of the module that ``modprobe nvidia`` would load now.

modinfo does not follow the rule with which Debian's packages lead modprobe from nvidia to nvidia-current.
"""

_PACKAGES = {
    "debian": """headers_of() {
  case $1 in *-pve) package=proxmox-headers-$1 ;; *) package=linux-headers-$1 ;; esac
}
packaged() { grep -l -s -x -F "/boot/vmlinuz-$1" /var/lib/dpkg/info/*"$1"*.list; }
offered() {
  set -- "$(timeout 30 apt-cache policy "$1" 2>/dev/null)" /var/lib/apt/lists/*Packages*
  case $1 in
    *"Candidate: (none)"*) echo no ;;
    *Candidate:*) echo yes ;;
    *) if [ -e "$2" ]; then echo no; else echo unknown; fi ;;
  esac
}
""",
    "rhel": """headers_of() {
  case $1 in
    *uek*) package=kernel-uek-devel-$1 ;;
    *+*) package=kernel-${1#*+}-devel-${1%%+*} ;;
    *) package=kernel-devel-$1 ;;
  esac
}
packaged() { timeout 20 rpm -qf "/lib/modules/$1/vmlinuz" 2>/dev/null; }
offered() {
  if found=$(timeout 60 dnf -q -C repoquery "$1" 2>/dev/null); then
    if [ -n "$found" ]; then echo yes; else echo no; fi
  else echo unknown; fi
}
""",
}


GENERAL = {"22.04": "5.15", "24.04": "6.8"}
"""The series of each Ubuntu's general kernel; later ones are its hardware enablement stack (HWE)."""


def headers_of_later_kernels(os: str, version: str, kernel: str, architecture: str) -> tuple[str, ...]:
    """The packages that bring the headers of every later kernel of the same flavour with it.

    Sources: the linux-meta packages of Debian and Ubuntu; NVIDIA Driver Installation Guide, RHEL.

    :param kernel: release of the running kernel; one of another system counts as the usual one.
    :param architecture: ``amd64`` or ``arm64``, for Debian.
    """
    if os == "debian":
        found = re.search(r"-((cloud-|rt-)?(amd64|arm64)(-16k)?)$", kernel)
        return (f"linux-headers-{found[1] if found else architecture}",)
    if os == "ubuntu":
        found = re.match(r"(\d+\.\d+)\.\d+-\d+-(\w+(-64k)?)$", kernel)
        series, flavour = (found[1], found[2]) if found else (GENERAL.get(version), "generic")
        rolling = flavour.partition("-")[0] not in ("generic", "lowlatency", "nvidia")
        late = not rolling and series != GENERAL.get(version, series)
        return (f"linux-headers-{flavour}{f'-hwe-{version}' if late else ''}",)
    variant = "-uek" if "uek" in kernel else f"-{kernel.partition('+')[2]}" if "+" in kernel else ""
    matched = "-matched" if version.partition(".")[0] != "8" and variant != "-uek" else ""
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


def kernels_script(family: Family, prebuilt: str = "") -> str:
    """Sh text that tells of both kernels, for :func:`kernels`. Package tools run only where something misses.

    :param prebuilt: ask for ready modules instead of headers; the beginning of their packages' names.
    """
    is_there = '[ -n "$(driver_module "$k")" ]' if prebuilt else '[ -e "/lib/modules/$k/build/Makefile" ]'
    package = f"package={prebuilt}-$k" if prebuilt else 'headers_of "$k"'
    return f"""{KERNELS}{DRIVER_MODULE}{_PACKAGES[family]}for k in $kernels; do
  {package}
  if {is_there}; then echo "$k $package yes - -"; continue; fi
  own=no
  [ -z "$(packaged "$k")" ] || own=yes
  echo "$k $package no $own $(offered "$package")"
done
"""


def kernels(answer: Output) -> Kernels:
    """Read the answer to :func:`kernels_script`.

    :raises ValueError: if it is none.
    """
    lines = [line.split(" ") for line in answer.out.splitlines()]
    if len(lines) not in (1, 2) or any(len(line) != 5 for line in lines):
        raise ValueError(f"not a line for one or two kernels: {answer.err.strip()}")
    told = {"yes": True, "no": False}
    found = [
        Kernel(release, package)
        if ready == "yes"
        else Kernel(release, package, False, own == "yes", told.get(offered))
        for release, package, ready, own, offered in lines
    ]
    return Kernels(found[0], found[-1])


@dataclass(frozen=True)
class KernelHeaders(Resource):
    """The headers of the running and of the newest installed kernel.

    The package that brings those of later kernels (``linux-headers-amd64``) is not its business.
    """

    family: Family
    kind: ClassVar[str] = "kernel-headers"

    @property
    def id(self) -> str:
        """A host has one set of kernels."""
        return "kernel-headers"

    @classmethod
    def probe(cls, resources: Sequence[KernelHeaders]) -> Probe:
        """Look for what DKMS looks for."""
        return Probe("kernel-headers", kernels_script(resources[0].family))

    @classmethod
    def states(cls, resources: Sequence[KernelHeaders], answer: Output) -> Mapping[str, Kernels]:
        """Both kernels."""
        return dict.fromkeys((r.id for r in resources), kernels(answer))

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
class NewestKernel(Resource):
    """The newest kernel runs, where the driver's module cannot be had for an older one any more.

    :ivar packages: names of the packages whose move takes a module away that the running kernel has.
    :ivar prebuilt: as in :class:`~provision.resources.driver_modules.DriverModules`; empty for DKMS.
    """

    family: Family
    policy: RebootPolicy
    packages: tuple[str, ...] = ()
    prebuilt: str = ""
    kind: ClassVar[str] = "newest-kernel"

    @property
    def id(self) -> str:
        """A host runs one kernel."""
        return "newest-kernel"

    @classmethod
    def probe(cls, resources: Sequence[NewestKernel]) -> Probe:
        """Look at headers or ready modules, and for the module of a running kernel that has no headers."""
        script = kernels_script(resources[0].family, resources[0].prebuilt)
        return Probe(
            "newest-kernel",
            f"""{script}if [ ! -e "/lib/modules/$running/build/Makefile" ] &&
  [ -n "$(driver_module "$running")" ]; then echo module; fi
""",
        )

    @classmethod
    def states(cls, resources: Sequence[NewestKernel], answer: Output) -> Mapping[str, tuple[Kernels, bool]]:
        """Both kernels, and whether the running one has the driver's module although it has no headers."""
        text, mark, _ = answer.stdout.partition(b"module\n")
        found = kernels(Output(answer.exit_code, text, answer.stderr))
        return dict.fromkeys((r.id for r in resources), (found, bool(mark)))

    def change(self, state: tuple[Kernels, bool], planned: Planned) -> Change | None:
        """Reboot, unless the running kernel has the module and its packages stay as they are."""
        found, has_module = state
        verbs = ("install", "upgrade", "downgrade", "repair")
        moves = planned.positions([f"package:{name}:{verb}" for name in self.packages for verb in verbs])
        if not found.left_behind or (has_module and not moves):
            return None
        # A driver that works now must not lose its module before the reboot is allowed.
        causes = self.policy.causes if has_module else ()
        return replace(self.policy.change(self.id, found.left_behind, Users(), causes=causes), look=USERS)

    def looked(self, change: Change, answer: Output) -> Change:
        """Say who is in the way."""
        return replace(change, impact=users(answer).impact())
