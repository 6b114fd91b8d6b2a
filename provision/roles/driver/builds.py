"""The driver's kernel modules on disk, for the running kernel and for the one that the host boots next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.probe import Output, Probe, words
from provision.resource import Change, Planned, Resource
from provision.roles.driver.kernel import DRIVER_MODULE, KERNELS

BUILT = """for k in $kernels; do
  file=$(driver_module "$k") version=- headers=no built=
  if [ -n "$file" ]; then version=$(modinfo -F version "$file" 2>/dev/null)
  elif [ "$k" = "$running" ] && [ -e /sys/module/nvidia/version ] && [ ! -e /sys/module/nvidia/refcnt ]; then
    read -r version </sys/module/nvidia/version
  fi
  if [ -e "/lib/modules/$k/build/Makefile" ]; then headers=yes; fi
  for folder in /var/lib/dkms/nvidia*/*/"$k"/*/; do
    [ -d "$folder" ] || continue
    arch=${folder%/} added=${folder%"/$k/"*}
    arch=${arch##*/} tree=${added%/*}
    case ${tree##*/} in nvidia-fs | nvidia-peermem) continue ;; esac
    active=$tree/kernel-$k-$arch
    if [ ! -L "$active" ] || [ "$active" -ef "$folder" ]; then built="$built ${tree##*/}/${added##*/}"; fi
  done
  echo "$k ${version:-?} $headers$built"
done
"""
"""Sh text that tells of both kernels which module they have, and what DKMS has installed for them.

DKMS is read from where it keeps its books: ``dkms status`` takes 0.2 to 0.4 s for two versions and kernels.
Of several versions that are built, a link ``kernel-RELEASE-ARCH`` marks the one that is installed.
What is built into a kernel has no reference count in sysfs.
"""


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
        return Probe("driver-modules", f"{KERNELS}{DRIVER_MODULE}{BUILT}")

    @classmethod
    def states(
        cls, resources: Sequence[DriverModules], answer: Output
    ) -> Mapping[str, tuple[KernelModules, ...]]:
        """The running kernel, then the newest if that is another one.

        :raises ValueError: if the answer is not about one or two kernels.
        """
        rows = [line.split(" ") for line in answer.out.splitlines()]
        if len(rows) not in (1, 2) or any(len(row) < 3 for row in rows):
            raise ValueError(f"not a line for one or two kernels: {answer.err.strip()}")
        found = [
            KernelModules(row[0], row[1].removeprefix("-"), row[2] == "yes", tuple(row[3:])) for row in rows
        ]
        return dict.fromkeys((r.id for r in resources), tuple(found))

    def change(self, state: tuple[KernelModules, ...], planned: Planned) -> Change | None:
        """Build or install what is missing. After its packages it is a proof, as they build modules too."""
        verbs = ("install", "upgrade", "downgrade", "repair")
        moves = planned.positions([f"package:{name}:{verb}" for name in self.packages for verb in verbs])
        headers = planned.positions(("kernel-headers", "packages:kernel-headers"))
        lacking = [k for k in state if not self._right(k) and self._can_be_built(k, state, bool(headers))]
        if not moves and not lacking:
            return None
        kernels = words(*(k.kernel for k in state))
        said = " and ".join(k.kernel for k in (state if moves else lacking))
        how = self.prebuilt or "dkms"
        return Change(
            resource=self.id,
            action="build",
            summary=f"kernel modules {self.version} for {said}"
            + (", as far as the packages did not build them" if moves else ""),
            reason="its packages change" if moves else "; ".join(self._wrong(k) for k in lacking),
            done=f"{DRIVER_MODULE}modules_are_there {words(how, self.version)} {kernels}",
            script=f"{DRIVER_MODULE}build_modules {words(how, self.version)} {kernels}",
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

    def _can_be_built(self, kernel: KernelModules, state: tuple[KernelModules, ...], headers: bool) -> bool:
        """Whether to try: without headers only where they come now, or where this is the only kernel."""
        return bool(self.prebuilt) or kernel.headers or headers or kernel is state[-1]

    def _wrong(self, kernel: KernelModules) -> str:
        if not kernel.version:
            return f"kernel {kernel.kernel} has no module of the driver"
        books = f" (dkms: {', '.join(kernel.built)})" if kernel.built else ""
        return f"kernel {kernel.kernel} has the driver's module {kernel.version}{books}"
