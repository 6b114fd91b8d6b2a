"""Which packages make up the driver: one table for all systems and sources."""

from __future__ import annotations

from dataclasses import dataclass

from provision.errors import Refusal
from provision.facts import Facts


@dataclass(frozen=True)
class DriverPackages:
    """Names of packages for one system, source and flavour.

    :ivar installed: what is installed at the driver's version; the rest follows as dependencies.
    :ivar pinned: names and globs of all packages that carry the driver's version.
    :ivar headers: the package that brings the kernel's headers, or None.
    """

    installed: tuple[str, ...]
    pinned: tuple[str, ...]
    headers: str | None = None


PINNED = (
    "nvidia-*",
    "libnvidia-*",
    "libcuda*",
    "libnvcuvid*",
    "firmware-nvidia-gsp",
    "xserver-xorg-video-nvidia",
)

TABLE: dict[tuple[str, str, str], tuple[str, ...]] = {
    # (system, source, flavour): compute-only sets, no X. Debian's own: packages.debian.org, non-free;
    # NVIDIA's: the "Compute-only (Headless)" part of its driver installation guide for Debian.
    ("debian 12", "archive", "open"): (
        "nvidia-smi",
        "libcuda1",
        "nvidia-persistenced",
        "nvidia-open-kernel-dkms",
    ),
    ("debian 12", "archive", "proprietary"): (
        "nvidia-smi",
        "libcuda1",
        "nvidia-persistenced",
        "nvidia-kernel-dkms",
    ),
    ("debian 12", "cuda", "open"): ("nvidia-driver-cuda", "nvidia-kernel-open-dkms"),
    ("debian 12", "cuda", "proprietary"): ("nvidia-driver-cuda", "nvidia-kernel-dkms"),
}


def package_set(facts: Facts, source: str, flavour: str, *, headers: bool) -> DriverPackages:
    """Look a system up in the table; a mirror carries what NVIDIA's repository does.

    :raises Refusal: for a system that is not in it.
    """
    names = TABLE.get((facts.system, "cuda" if source == "mirror" else source, flavour))
    if names is None:
        raise Refusal(
            f"no driver packages known for {facts.system} from source {source} ({flavour} modules)",
            hint="supported: see the support table in README.md",
        )
    return DriverPackages(names, PINNED, f"linux-headers-{facts.architecture}" if headers else None)
