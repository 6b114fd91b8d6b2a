"""NVIDIA Container Toolkit: what lets containers see the GPUs."""

from __future__ import annotations

from pydantic import Field

from provision.facts import Facts
from provision.resources.base import Resource
from provision.resources.file import File, NoFile
from provision.resources.package import Package, Packages
from provision.roles.base import Repo, Role, Settings, apt_source, require_apt

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
"""All four at one version, or apt mixes releases (NVIDIA's installation guide)."""

OLD_SOURCES = (
    "nvidia-docker",
    "nvidia-container-runtime",
    "libnvidia-container",
    "nvidia-container-toolkit",
)
"""List files of earlier instructions, at which apt stops with "Conflicting values … for option Signed-By"."""


class ToolkitSettings(Settings):
    """Settings under ``toolkit:``."""

    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.+~:-]*$")
    """Version of all four packages, as Debian writes it: ``1.20.0-1``."""
    repo: Repo
    """Where the packages come from: NVIDIA's repository or a mirror of it."""
    hold: bool = True
    """Keep upgrades of the system from moving the packages."""


def resources(settings: ToolkitSettings, facts: Facts) -> list[Resource]:
    """Repository, pin, packages."""
    require_apt(facts, "toolkit")
    pin = f"Package: {' '.join(PACKAGES)}\nPin: version {settings.version}\nPin-Priority: 1000\n"
    return [
        *(
            NoFile(f"/etc/apt/sources.list.d/{name}.list", "an older source of the same packages")
            for name in OLD_SOURCES
        ),
        *apt_source(settings.repo, facts),
        File("/etc/apt/preferences.d/provision-toolkit", pin.encode()),
        Packages("toolkit", tuple(Package(p, settings.version) for p in PACKAGES), hold=settings.hold),
    ]


ROLE = Role("toolkit", 20, ToolkitSettings, resources)
