"""NVIDIA driver: packages pinned and held, nouveau out of the way, module loaded, persistence daemon up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from provision.driver_packages import package_set
from provision.errors import Refusal
from provision.facts import Facts
from provision.gpus import needs_open, supports_open
from provision.render import render
from provision.resources.base import Resource
from provision.resources.file import File
from provision.resources.handler import Handler
from provision.resources.module import Module
from provision.resources.package import Package, Packages
from provision.resources.reboot import Reboot, RebootPolicy
from provision.resources.service import Service
from provision.roles.base import ImpossibleError, Repo, Role, Settings, apt_source, require_apt


class DriverSettings(Settings):
    """Settings under ``driver:``."""

    source: Literal["archive", "cuda", "mirror"] = "mirror"
    """``archive``: the distribution's packages; ``cuda``: NVIDIA's repository; ``mirror``: a copy of that."""
    repo: Repo | None = None
    """The repository, for ``cuda`` and ``mirror``."""
    branch: int = Field(default=580, ge=450, le=999)
    """Driver branch, the major version. 580 is the long-term branch (until June 2028)."""
    version: str | None = Field(default=None, pattern=r"^[0-9][A-Za-z0-9.+~:-]*$")
    """Exact version as Debian writes it (``580.159.04-1``); null: any version of the branch."""
    flavour: Literal["auto", "open", "proprietary"] = "auto"
    """Kernel modules; ``auto`` takes the open ones wherever every GPU of the host can use them."""
    headers: bool = True
    """Install the kernel's headers, which DKMS builds against."""
    persistence: bool = True
    """Run nvidia-persistenced, so that the driver stays initialised between jobs."""
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
        if self.version and self.version.split(".")[0] != str(self.branch):
            raise ImpossibleError(
                f"version {self.version} is not of branch {self.branch}", hint="make branch its first number"
            )
        return self


def flavour(settings: DriverSettings, facts: Facts) -> Literal["open", "proprietary"]:
    """The kernel modules to use.

    :raises Refusal: where the GPUs of the host cannot run with what is asked for.
    """
    generations = {gpu.architecture for gpu in facts.gpus} - {None}
    closed = sorted(a.name.title() for a in generations if a and not supports_open(a))
    opened = sorted(a.name.title() for a in generations if a and needs_open(a))
    if closed and opened:
        raise Refusal(f"no kernel module drives both {', '.join(closed)} and {', '.join(opened)}")
    if settings.flavour == "open" and closed:
        raise Refusal(
            f"the open modules do not drive {', '.join(closed)}", hint="flavour: proprietary or auto"
        )
    if settings.flavour == "proprietary" and opened:
        raise Refusal(
            f"the proprietary modules do not drive {', '.join(opened)}", hint="flavour: open or auto"
        )
    if closed and settings.branch > 580:
        raise Refusal(f"branch {settings.branch} does not drive {', '.join(closed)}", hint="branch: 580")
    if settings.flavour == "auto":
        return "proprietary" if closed else "open"
    return settings.flavour


def resources(settings: DriverSettings, facts: Facts) -> list[Resource]:
    """Repository, pin, nouveau, packages, module, daemon."""
    require_apt(facts, "driver")
    if not facts.gpus:
        raise Refusal(
            "no NVIDIA GPU on the PCI bus", hint="take the host out of the group, or look at its slots"
        )
    names = package_set(facts, settings.source, flavour(settings, facts), headers=settings.headers)
    version = settings.version or f"{settings.branch}.*"
    blacklist = "/etc/modprobe.d/provision-nouveau.conf"
    policy = RebootPolicy(
        facts.boot_id,
        allowed=settings.reboot == "allowed",
        timeout=settings.reboot_timeout,
        causes=("file:/etc/apt/preferences.d/provision-driver", "packages:driver"),
    )
    pin = f"Package: {' '.join(names.pinned)}\nPin: version {version}\nPin-Priority: 1000\n"
    return [
        *(apt_source(settings.repo, facts) if settings.repo else ()),
        File("/etc/apt/preferences.d/provision-driver", pin.encode()),
        File(blacklist, render("nouveau.conf.j2").encode()),
        Handler("rebuild the initramfs", on=(f"file:{blacklist}",), script="rebuild_initramfs"),
        *([Packages("kernel-headers", (Package(names.headers),), hold=False)] if names.headers else ()),
        Packages("driver", tuple(Package(name, version) for name in names.installed), hold=settings.hold),
        Reboot(policy),
        Module("nvidia", version.rpartition("-")[0] or version, names.installed, policy),
        Module("nvidia-uvm"),
        *([Service("nvidia-persistenced.service")] if settings.persistence else ()),
    ]


ROLE = Role("driver", 10, DriverSettings, resources)
