"""NVIDIA driver: packages pinned and held, nouveau out of the way, module loaded, daemons up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from provision.driver_packages import (
    FAMILY,
    PINNED,
    DriverPackages,
    Flavour,
    choose_flavour,
    package_set,
    refuse_foreign_repository,
    system_of,
    unknown_gpus,
)
from provision.errors import Refusal
from provision.facts import Facts
from provision.render import render
from provision.resources.base import Resource
from provision.resources.fabric_manager import FabricManager
from provision.resources.file import File
from provision.resources.handler import Handler
from provision.resources.module import Module
from provision.resources.package import Package, Packages
from provision.resources.reboot import Reboot, RebootPolicy
from provision.resources.service import Service
from provision.roles.base import ImpossibleError, Repo, Role, Settings, apt_source, require_apt

PREFERENCES = "/etc/apt/preferences.d/provision-driver"
BLACKLIST = "/etc/modprobe.d/provision-nouveau.conf"


class DriverSettings(Settings):
    """Settings under ``driver:``."""

    source: Literal["archive", "cuda", "mirror"] = "mirror"
    """``archive``: the distribution's packages; ``cuda``: NVIDIA's repository; ``mirror``: a copy of that."""
    repo: Repo | None = None
    """The repository, for ``cuda`` and ``mirror``. For ARM its folder is ``sbsa``."""
    branch: int = Field(default=580, ge=450, le=999)
    """Driver branch, the major version. 580 is the long-term branch (until June 2028)."""
    version: str | None = Field(default=None, pattern=r"^[0-9][A-Za-z0-9.+~:-]*$")
    """Exact version as the package has it (``580.159.04-1``); null: any version of the branch."""
    flavour: Literal["auto", "open", "proprietary"] = "auto"
    """Kernel modules; ``auto``: by the GPUs of the host, and the branch where they leave a choice."""
    prebuilt: bool = True
    """Ubuntu's archive: modules that are built and signed for Ubuntu's kernels; false: DKMS."""
    headers: bool = True
    """Install the kernel's headers, which DKMS builds against."""
    persistence: bool = True
    """Run nvidia-persistenced, so that the driver stays initialised between jobs."""
    fabric_manager: Literal["auto", "off"] = "auto"
    """``auto``: the Fabric Manager where there are NVSwitches, at the driver's version; ``off``: none."""
    hold: bool = True
    """Keep upgrades of the system from moving the packages."""
    reboot: Literal["allowed", "never"] = "never"
    """``allowed``: reboot where one is needed; ``never``: the run ends there without ``--reboot``."""
    reboot_timeout: int = Field(default=900, ge=30, le=7200)
    """Seconds within which a host must be back from a reboot."""

    @model_validator(mode="after")
    def _go_together(self) -> DriverSettings:
        if (self.source == "archive") != (self.repo is None):
            raise ImpossibleError(
                f"source {self.source} {'with' if self.repo else 'without'} a repo",
                hint="cuda and mirror need repo: uri, key and fingerprint; archive takes none",
            )
        if self.version and self.version.rpartition(":")[2].split(".")[0] != str(self.branch):
            raise ImpossibleError(
                f"version {self.version} is not of branch {self.branch}", hint="make branch its first number"
            )
        return self

    @property
    def wanted(self) -> str:
        """The version that packages must have: exact, or a glob."""
        return self.version or f"{self.branch}.*"

    @property
    def upstream(self) -> str:
        """NVIDIA's version in it, without epoch and packaging suffix; or the same glob."""
        return self.wanted.rpartition(":")[2].partition("-")[0]


def resources(settings: DriverSettings, facts: Facts) -> list[Resource]:
    """Repository, pin, nouveau, headers, packages, reboot, modules, daemons."""
    require_apt(facts, "driver")
    chosen, flavour = packages_of(settings, facts)
    policy = RebootPolicy(
        facts.boot_id,
        allowed=settings.reboot == "allowed",
        timeout=settings.reboot_timeout,
        causes=(f"file:{PREFERENCES}", "packages:driver"),
    )
    manager = _fabric_manager(settings, facts, chosen)
    return [
        *_sources(settings, facts),
        File(BLACKLIST, render("nouveau.conf.j2").encode()),
        Handler("rebuild the initramfs", on=(f"file:{BLACKLIST}",), script="rebuild_initramfs"),
        *_headers(settings, facts, chosen),
        *_packages(settings, facts, chosen, flavour, manager),
        Reboot(policy),
        Module("nvidia", settings.upstream, chosen.installed, policy),
        Module("nvidia-uvm"),
        *([Service("nvidia-persistenced.service")] if settings.persistence else ()),
        *([Service("nvidia-fabricmanager.service")] if manager else ()),
    ]


def packages_of(settings: DriverSettings, facts: Facts) -> tuple[DriverPackages, Flavour]:
    """The packages of a host's driver, and its kernel modules.

    :raises Refusal: where the host cannot have the driver that is asked for.
    """
    if not facts.gpus:
        raise Refusal(
            "no NVIDIA GPU on the PCI bus", hint="take the host out of the group, or look at its slots"
        )
    if settings.repo:
        refuse_foreign_repository(facts, settings.repo.uri)
    flavour = choose_flavour(settings.flavour, settings.branch, facts.gpus)
    chosen = package_set(facts, settings.source, settings.branch, flavour, prebuilt=settings.prebuilt)
    return chosen, flavour


def _sources(settings: DriverSettings, facts: Facts) -> list[Resource]:
    """The repository, and apt's preference for this branch above all others, NVIDIA's own pins included."""
    pin = f"Package: {' '.join(PINNED)}\nPin: version {settings.wanted}\nPin-Priority: 1001\n"
    return [
        *(apt_source(settings.repo, facts) if settings.repo else ()),
        File(PREFERENCES, pin.encode()),
    ]


def _headers(settings: DriverSettings, facts: Facts, chosen: DriverPackages) -> list[Resource]:
    if not (settings.headers and chosen.dkms):
        return []
    return [Packages("kernel-headers", (Package(f"linux-headers-{facts.architecture}"),), hold=False)]


def _packages(
    settings: DriverSettings, facts: Facts, chosen: DriverPackages, flavour: Flavour, manager: str
) -> list[Resource]:
    """The pinning package before all others; the rest in one go, so that versions stay in step."""
    remarks = (unknown_gpus(facts.gpus), "" if settings.version else chosen.caution)
    together = (
        *(Package(name, settings.wanted) for name in chosen.versioned),
        *(Package(name) for name in chosen.beside),
        *(
            [Package(manager, settings.wanted if "*" in settings.wanted else f"{settings.upstream}-*")]
            if manager
            else ()
        ),
        *([Package(chosen.subnet_manager)] if manager and facts.nvlink5 else ()),
    )
    return [
        *(
            [Packages("driver-pinning", tuple(map(Package, chosen.pinning)), hold=False)]
            if chosen.pinning
            else ()
        ),
        Packages(
            "driver",
            together,
            hold=settings.hold,
            branch=settings.branch,
            others=FAMILY["debian"],
            why=flavour.reason,
            remarks=tuple(filter(None, remarks)),
            proof=f"driver_is_branch {settings.branch}",
        ),
        FabricManager("debian", manager, chosen.proof, hold=settings.hold),
    ]


def _fabric_manager(settings: DriverSettings, facts: Facts, chosen: DriverPackages) -> str:
    """The package with the Fabric Manager; empty where the host has no use for it.

    :raises Refusal: where it is needed and the source has none.
    """
    if not facts.has_nvswitch or settings.fabric_manager == "off":
        return ""
    lacks = "Fabric Manager" * (not chosen.fabric_manager) or "nvlsm" * (
        facts.nvlink5 and not chosen.subnet_manager
    )
    if lacks:
        raise Refusal(
            f"the GPUs are joined by NVSwitches, and source {settings.source} has no {lacks}"
            f" for {system_of(facts)}",
            hint="source: cuda or mirror; fabric_manager: off if you look after it yourself",
        )
    return chosen.fabric_manager


ROLE = Role("driver", 10, DriverSettings, resources)
