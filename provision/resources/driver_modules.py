"""The driver's kernel modules on disk, for the running kernel and for the one that the host boots next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.command import Output, Probe, words
from provision.resources.base import Change, Planned, Resource
from provision.resources.kernel import HAS_MODULE, KERNELS

BUILT = """for k in "$running" "$newest"; do
  module=no headers=no built=
  if has_module "$k"; then module=yes; fi
  if [ -e "/lib/modules/$k/build/Makefile" ]; then headers=yes; fi
  for folder in /var/lib/dkms/nvidia*/*/"$k"/*/; do
    [ -d "$folder" ] || continue
    arch=${folder%/} version=${folder%"/$k/"*}
    arch=${arch##*/} name=${version%/*} version=${version##*/}
    active=$name/kernel-$k-$arch name=${name##*/}
    case $name in nvidia-fs | nvidia-peermem) continue ;; esac
    if [ ! -L "$active" ] || [ "$active" -ef "$folder" ]; then built="$built $name/$version"; fi
  done
  echo "$k $module $headers$built"
done
"""
"""Sh text that tells of both kernels what DKMS has installed for them, from where DKMS keeps its books.

``dkms status`` says the same and takes 50 ms for every version and kernel, being a shell script. A link
``kernel-RELEASE-ARCH`` marks the version that is installed, where several are built (dkms 2.0 to 3.2).
"""


@dataclass(frozen=True)
class KernelModules:
    """What one kernel has.

    :ivar module: whether the driver's module is where modprobe finds it.
    :ivar headers: whether it could be built.
    :ivar built: ``NAME/VERSION`` of what DKMS has installed for it.
    """

    kernel: str
    module: bool
    headers: bool
    built: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriverModules(Resource):
    """The running and the newest installed kernel both have the driver's module.

    :ivar version: of the driver, without packaging suffix, exact or a glob.
    :ivar packages: names of the packages whose installation builds modules.
    :ivar prebuilt: beginning of the names of packages that bring ready modules for one kernel each, before
        its release (Ubuntu: ``linux-modules-nvidia-580-server-open``). Empty for DKMS.
    """

    version: str
    packages: tuple[str, ...]
    prebuilt: str = ""
    kind: ClassVar[str] = "driver-modules"

    @property
    def id(self) -> str:
        """A host has one driver."""
        return "driver-modules"

    @classmethod
    def probe(cls, resources: Sequence[DriverModules]) -> Probe:  # noqa: ARG003
        """Read folders; dkms itself is not asked."""
        return Probe("driver-modules", f"{KERNELS}{HAS_MODULE}{BUILT}")

    @classmethod
    def states(
        cls, resources: Sequence[DriverModules], answer: Output
    ) -> Mapping[str, tuple[KernelModules, ...]]:
        """The running kernel, then the newest if that is another one.

        :raises ValueError: if the answer is not about two kernels.
        """
        rows = [line.split(" ") for line in answer.out.splitlines()]
        if len(rows) != 2 or any(len(row) < 3 for row in rows):
            raise ValueError(f"not a line for each of two kernels: {answer.err.strip()}")
        found = [KernelModules(row[0], row[1] == "yes", row[2] == "yes", tuple(row[3:])) for row in rows]
        return dict.fromkeys((r.id for r in resources), tuple(dict.fromkeys(found)))

    def change(self, state: tuple[KernelModules, ...], planned: Planned) -> Change | None:
        """Build or install what is missing. After its packages it is a proof, as they build modules too."""
        verbs = ("install", "upgrade", "downgrade", "repair")
        moves = planned.positions([f"package:{name}:{verb}" for name in self.packages for verb in verbs])
        headers = planned.positions(("kernel-headers", "packages:kernel-headers"))
        lacking = [k for k in state if not self._right(k) and self._can_be_built(k, state, bool(headers))]
        if not moves and not lacking:
            return None
        releases = words(*(k.kernel for k in (state if moves else lacking)))
        said = " and ".join(k.kernel for k in (state if moves else lacking))
        how = self.prebuilt or "dkms"
        return Change(
            resource=self.id,
            action="build",
            summary=f"kernel modules {self.version} for {said}"
            + (", as far as the packages did not build them" if moves else ""),
            reason="its packages change" if moves else "; ".join(self._wrong(k) for k in lacking),
            done=f"{HAS_MODULE}modules_are_there {words(how, self.version)} {releases}",
            script=f"{HAS_MODULE}build_modules {words(how, self.version)} {releases}",
        )

    def notes(self, state: tuple[KernelModules, ...], planned: Planned) -> Sequence[str]:
        """What is missing and cannot be mended."""
        if self.change(state, planned):
            return ()
        return tuple(self._wrong(k) for k in state if not self._right(k))

    def _right(self, kernel: KernelModules) -> bool:
        """Whether a kernel has the module in the right version, where that can be told.

        Modules of packages have no entry in DKMS's books, nor have those that RHEL's weak-modules links from
        another kernel.
        """
        if self.prebuilt or not kernel.built:
            return kernel.module
        return kernel.module and any(fnmatchcase(_version(b), self.version) for b in kernel.built)

    def _can_be_built(self, kernel: KernelModules, state: tuple[KernelModules, ...], headers: bool) -> bool:
        """Whether to try: without headers only where they come now, or where this is the only kernel."""
        return bool(self.prebuilt) or kernel.headers or headers or kernel is state[-1]

    def _wrong(self, kernel: KernelModules) -> str:
        if kernel.built and kernel.module and not self.prebuilt:
            return f"kernel {kernel.kernel} has {' and '.join(kernel.built)}"
        return f"kernel {kernel.kernel} has no module of the driver"


def _version(built: str) -> str:
    return built.rpartition("/")[2]
