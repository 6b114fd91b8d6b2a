"""NVIDIA driver: packages pinned and held, nouveau out of the way, module loaded, daemons up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from provision.errors import Refusal
from provision.facts import Facts, Family
from provision.gpu.advisories import DRIVER, warning
from provision.render import render
from provision.resource import AnyResource, Handler, Permission
from provision.resources.file import File, gone
from provision.resources.initramfs import Initramfs
from provision.resources.packages.deb import left_alone
from provision.resources.packages.public import Mirror
from provision.resources.packages.repository import Repo, package_resource, repository, require_family
from provision.resources.packages.sets import VERBS, MajorVersion, Package
from provision.resources.reboot import REBOOT, RebootPolicy
from provision.resources.service import Service
from provision.resources.signals import DRIVER_LOADED, DRIVER_MOVED
from provision.role import ImpossibleError, Role, Settings
from provision.roles.driver.device_nodes import DeviceNodes
from provision.roles.driver.fabric_manager import FabricManager, upstream
from provision.roles.driver.foreign import NoForeignDriver
from provision.roles.driver.kernel import KernelHeaders, NewestKernel, headers_of_later_kernels
from provision.roles.driver.module import Module
from provision.roles.driver.modules_on_disk import BUILD, DriverModules
from provision.roles.driver.packages.choose import DriverPackages, package_set, system_of
from provision.roles.driver.packages.cuda import cuda_repository, refuse_foreign_repository
from provision.roles.driver.packages.flavour import choose_flavour, unknown_gpus
from provision.roles.driver.packages.table import FAMILY, PINNED
from provision.roles.driver.persistence import UNIT, PersistenceMode
from provision.roles.driver.reboot import Reboot
from provision.roles.driver.secure_boot import SecureBoot

PREFERENCES = "/etc/apt/preferences.d/provision-driver"
BLACKLIST = "/etc/modprobe.d/provision-nouveau.conf"

LEFT_ALONE = (
    "nvidia-",
    "libnvidia-",
    "libcuda1",
    "cuda-drivers",
    "firmware-nvidia-",
    "linux-modules-nvidia-",
)
"""Beginnings of names that unattended upgrades leave alone: the libraries must not overtake the module."""

KERNELS = ("linux-image-", "linux-headers-", "linux-modules-")
"""The same for kernels, where modules come ready for each: a kernel without them has no GPU."""

SIGNED = "source: archive with prebuilt: true has modules for Ubuntu's kernels that Canonical has signed"

BRANCH_CHANGE = Permission(
    "branch-change",
    "driver branch change is not allowed",
    "read the plan, then add --allow-branch-change",
    first=True,
)
"""Another branch of the driver than the installed one."""


class DriverSettings(Settings):
    """Settings under ``driver:``."""

    source: Literal["archive", "cuda"] = "cuda"
    """``cuda``: NVIDIA's repository, or a copy of it; ``archive``: the distribution's packages."""
    mirror: Mirror | None = None
    """The site's copies of public repositories; where it is left out, the host's variable ``mirror``."""
    repo: Repo | None = None
    """Another repository with NVIDIA's packages, in place of its own and of the mirror."""
    branch: int = Field(default=580, ge=450, le=999)
    """Driver branch, the major version. 580 is the long-term branch (until June 2028)."""
    version: str | None = Field(default=None, pattern=r"^[0-9][A-Za-z0-9.+~:-]*$", examples=["580.159.04-1"])
    """Exact version: ``580.159.04-1`` as apt has it, ``580.159.04`` for dnf; null: any of the branch."""
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
        if self.source == "archive" and self.repo:
            raise ImpossibleError(
                "source archive with a repo", hint="source: cuda takes packages from a repo"
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
        return upstream(self.wanted)


def resources(settings: DriverSettings, facts: Facts) -> list[AnyResource]:
    """Repository, pin, nouveau, headers, packages, reboot, modules, device nodes, daemons."""
    family = require_family(facts, "driver")
    chosen = packages_of(settings, facts)
    manager = fabric_manager_of(settings, facts, chosen)
    policy = RebootPolicy(
        facts.boot_id,
        REBOOT,
        allowed=settings.reboot == "allowed",
        timeout=settings.reboot_timeout,
        causes=(f"file:{PREFERENCES}", "packages:driver-pinning", "packages:driver", "fabric-manager"),
    )
    return [
        NoForeignDriver(),
        *_sources(settings, facts, chosen, family),
        File(BLACKLIST, render("driver/nouveau.conf.j2").encode()),
        Initramfs(BLACKLIST),
        *_headers(settings, facts, chosen, family),
        *_packages(settings, facts, chosen, manager, family),
        *_built(settings, facts, chosen, policy, family),
        Reboot(policy),
        Module("nvidia", settings.upstream, chosen.installed, policy, (DRIVER_LOADED,)),
        Module("nvidia-uvm"),
        *_nodes(settings, facts, chosen),
        *(_persistence(facts) if settings.persistence else ()),
        *(_fabric(facts) if manager else ()),
    ]


def packages_of(settings: DriverSettings, facts: Facts) -> DriverPackages:
    """The packages of a host's driver.

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
    if chosen.exact and not settings.version:
        raise Refusal(
            chosen.exact,
            hint=f"driver.version: what apt-cache policy {chosen.modules[0]} shows on the host;"
            " or flavour: proprietary",
        )
    return chosen


def _sources(
    settings: DriverSettings, facts: Facts, chosen: DriverPackages, family: Family
) -> list[AnyResource]:
    """The repository; and for apt, this branch above all others, NVIDIA's own pins included."""
    found: list[AnyResource] = []
    if settings.source == "cuda":
        if settings.repo:
            found += repository(settings.repo, facts)
        else:
            found += repository(cuda_repository(facts, settings.mirror), facts, ("compute/cuda/repos",))
    if family == "debian":
        pin = render("driver/preferences.j2", packages=PINNED, version=settings.wanted)
        found.append(File(PREFERENCES, pin.encode()))
        if settings.hold:
            meta = f"linux-{chosen.kernels.partition('-')[0]}"
            kernels = (meta, *KERNELS) if chosen.prebuilt else ()
            found.append(left_alone("driver", (*LEFT_ALONE, *kernels)))
    return found


def _headers(
    settings: DriverSettings, facts: Facts, chosen: DriverPackages, family: Family
) -> list[AnyResource]:
    """Those of the kernels that are there, and what brings those of later ones."""
    if not settings.headers or chosen.prebuilt:
        return []
    later = tuple(map(Package, headers_of_later_kernels(facts)))
    return [
        package_resource(facts, "kernel-headers", later, hold=False, shell=(BUILD,)),
        KernelHeaders(family, facts.kernel),
    ]


def _packages(
    settings: DriverSettings, facts: Facts, chosen: DriverPackages, manager: str, family: Family
) -> list[AnyResource]:
    """The pinning package before all others; the rest in one go, so that versions stay in step."""
    exact = f"{settings.upstream}-*" if settings.version and family == "debian" else settings.upstream
    together = (
        *(Package(name, settings.wanted) for name in chosen.versioned),
        *(Package(name) for name in chosen.beside),
        *([Package(manager, exact)] if manager else ()),
        *([Package(chosen.subnet_manager)] if manager and facts.nvlink5 else ()),
    )
    kernels = "updates of the kernel wait for you: its ready-made modules are held with the driver"
    remarks = (
        unknown_gpus(facts.gpus),
        chosen.caution,
        f"the packages are in the archive's {', '.join(chosen.components)}" if chosen.components else "",
        kernels if chosen.prebuilt and settings.hold else "",
        warning(DRIVER, settings.upstream),
    )
    pinning = tuple(map(Package, chosen.pinning))
    return [
        *([package_resource(facts, "driver-pinning", pinning, hold=False)] if pinning else ()),
        package_resource(
            facts,
            "driver",
            together,
            hold=settings.hold,
            stream=f"nvidia-driver:{chosen.stream}" if chosen.stream else None,
            major=MajorVersion("branch", settings.branch, FAMILY[family], BRANCH_CHANGE),
            why=chosen.flavour.reason,
            remarks=tuple(filter(None, remarks)),
            proof=f"driver_is_branch {settings.branch}",
            signals=tuple((verb, DRIVER_MOVED) for verb in VERBS),
            along=("libcuda1", "libnvidia-*", "nvidia-*"),
            shell=("driver/library.sh", BUILD),
        ),
        FabricManager(family, manager, chosen.proof, hold=settings.hold),
    ]


def fabric_manager_of(settings: DriverSettings, facts: Facts, chosen: DriverPackages) -> str:
    """The package with the Fabric Manager; empty where the host has no use for it.

    :raises Refusal: where it is needed and the source has none.
    """
    if not facts.has_nvswitch or settings.fabric_manager == "off":
        return ""
    lacks = "" if chosen.fabric_manager else "Fabric Manager"
    if facts.nvlink5 and not chosen.subnet_manager:
        lacks = lacks or "nvlsm"
    if lacks:
        raise Refusal(
            f"the GPUs are joined by NVSwitches, and source {settings.source} has no {lacks}"
            f" for {system_of(facts)}",
            hint="source: cuda; fabric_manager: off if you look after it yourself",
        )
    return chosen.fabric_manager


def _built(
    settings: DriverSettings, facts: Facts, chosen: DriverPackages, policy: RebootPolicy, family: Family
) -> list[AnyResource]:
    """Modules for the running and the newest kernel, which the kernel will load."""
    found: list[AnyResource] = [
        DriverModules(settings.upstream, chosen.modules, chosen.prebuilt, facts.kernel)
    ]
    if facts.secure_boot and not chosen.prebuilt:
        found.append(SecureBoot(chosen.modules, SIGNED if facts.os == "ubuntu" else ""))
    return [*found, NewestKernel(family, policy, chosen.modules, chosen.prebuilt)]


def _nodes(settings: DriverSettings, facts: Facts, chosen: DriverPackages) -> list[AnyResource]:
    """Device nodes now; and at boot, where nvidia-modprobe comes with the driver."""
    if settings.source == "archive" and "nvidia-modprobe" not in chosen.installed:
        return [DeviceNodes()]
    unit = "provision-nvidia-nodes.service"
    path = f"/etc/systemd/system/{unit}"
    return [
        DeviceNodes(),
        File(path, render("driver/provision-nvidia-nodes.service.j2", gpus=len(facts.gpus)).encode()),
        Handler(
            "reload systemd for the device nodes",
            on=(f"file:{path}",),
            script="systemctl daemon-reload",
            reloads_systemd=True,
        ),
        Service(unit),
    ]


def _persistence(facts: Facts) -> list[AnyResource]:
    """The daemon. Ubuntu's unit starts it without persistence mode, and ends it when no GPU is plugged in."""
    service = Service(UNIT, after=("packages:driver",))
    if facts.os != "ubuntu":
        return [service, PersistenceMode()]
    path = f"/etc/systemd/system/{UNIT}.d/provision.conf"
    return [
        File(path, render("driver/persistenced.conf.j2").encode()),
        service,
        Handler(
            f"restart {UNIT}",
            on=(f"file:{path}",),
            script=f"systemctl daemon-reload && restart_unit {UNIT} 60",
            covered_by=(f"service:{UNIT}:start",),
            reloads_systemd=True,
        ),
        PersistenceMode(),
    ]


def _fabric(facts: Facts) -> list[AnyResource]:
    """The daemon; NVLink 5 is managed through InfiniBand's management interface, which nothing else loads."""
    umad: list[AnyResource] = [
        File("/etc/modules-load.d/provision-fabric.conf", b"# Written by provision: for nvlsm.\nib_umad\n"),
        Module("ib_umad"),
    ]
    daemon = Service("nvidia-fabricmanager.service", after=("packages:driver", "fabric-manager"))
    return [*(umad if facts.nvlink5 else ()), daemon]


def removal() -> list[AnyResource]:
    """The initramfs has a copy of what kept nouveau out."""
    name, shell = "rebuild the initramfs without our files", ("shell/rebuild_initramfs.sh",)
    return [Handler(name, on=(gone(BLACKLIST),), script="rebuild_initramfs", shell=shell)]


ROLE = Role(
    "driver",
    DriverSettings,
    resources,
    order=10,
    shared=("mirror",),
    driver=lambda settings: settings.upstream,
    removal=removal,
    example={"branch": 580},
)
