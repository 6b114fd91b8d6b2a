"""The host itself: name, time, kernel, limits, journal, and what upgrades must leave alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from provision.facts import Facts, Family
from provision.render import render
from provision.resource import AnyResource, Handler
from provision.resources.file import File, gone
from provision.resources.initramfs import Initramfs
from provision.resources.packages.deb import left_alone
from provision.resources.packages.repository import package_resource, require_family
from provision.resources.packages.sets import Package
from provision.resources.reboot import REBOOT, RebootPolicy
from provision.resources.service import Service
from provision.role import ImpossibleError, Role, Settings
from provision.roles.host.files import HostsEntry, NoFile, NoService, SharedFile
from provision.roles.host.kernel import (
    KERNEL_ARGUMENTS,
    STEPS,
    CommandLine,
    KernelModules,
    KernelReboot,
    Wanted,
)
from provision.roles.host.profiles import PROFILES, ProfileName
from provision.roles.host.values import Governor, Hostname, Journal, KernelValues, Limits

GRUB = "/etc/default/grub.d/99-provision.cfg"
"""Read after what cloud images and packages have there."""

SYSCTL = "/etc/sysctl.d/99-zz-provision.conf"
"""Read after 99-sysctl.conf, which is /etc/sysctl.conf."""

LIMITS = "/etc/systemd/system.conf.d/99-provision.conf"
JOURNAL = "/etc/systemd/journald.conf.d/99-provision.conf"
LOAD = "/etc/modules-load.d/provision-host.conf"
MODPROBE = "/etc/modprobe.d/zz-provision-host.conf"
"""The last value of an option holds, and systemd.conf sets some (dummy, bonding)."""
GOVERNOR = "provision-governor.service"
NEEDRESTART = "/etc/needrestart/conf.d/provision.conf"

RESTARTED_BY_NOBODY = (r"docker\.service$", r"containerd\.service$", "triton@", "nvidia-")
"""Beginnings of units that needrestart leaves alone, as regular expressions."""

LEFT_ALONE = ("docker", "containerd", "runc", "nvidia-", "libnvidia-")
"""Beginnings of names of packages whose upgrade restarts Docker, or parts libraries from their module."""

OTHER_TIME_DAEMONS = (
    "systemd-timesyncd.service",
    "ntp.service",
    "ntpd.service",
    "ntpsec.service",
    "openntpd.service",
)

OTHER_TIME_PACKAGES = ("systemd-timesyncd", "ntp", "ntpsec", "openntpd")
"""Debian's packages that cannot be beside chrony (its Conflicts: time-daemon)."""

HEADER = "# Written by provision.\n"

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
Server = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$")]
Argument = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][!#%&()*+,./0-9:;<=>?@A-Z\[\]^_a-z{|}~-]*$")
]
OptionValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_,.:;=/+-]*$")]
Key = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z][A-Za-z0-9_-]*([./][A-Za-z0-9_@:-][A-Za-z0-9_@:-]*(\.[A-Za-z0-9_@:-]+)*)+$"
    ),
]
Value = Annotated[str, StringConstraints(pattern=r"^[!-~]+( [!-~]+)*$")]


class TimeSettings(Settings):
    """chrony, and where it has the time from."""

    servers: list[Server] = Field(min_length=1, examples=[["ntp1.example.org", "192.0.2.7"]])
    """Time servers, by name or address. On Debian and Ubuntu they come beside the distribution's pool."""


class ModuleSettings(Settings):
    """Kernel modules."""

    load: list[Name] = []
    """Modules to load, now and at boot."""
    options: dict[Name, dict[Name, int | OptionValue]] = {}
    """Options of modules, by module and parameter."""
    blacklist: list[Name] = []
    """Modules that are not to be loaded for a device that is found."""

    @model_validator(mode="after")
    def _not_both(self) -> ModuleSettings:
        if both := sorted({_module(name) for name in self.load} & {_module(name) for name in self.blacklist}):
            raise ImpossibleError(
                f"module {both[0]} is in load and in blacklist", hint="name it in one of them"
            )
        return self


class HostSettings(Settings):
    """Settings under ``host:``. What they do not name is left as it is."""

    profile: ProfileName = "generic"
    """``h100``: NVIDIA's kernel arguments and CPU governor for hosts with H100 GPUs; ``generic``: nothing."""
    hostname: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
        examples=["gpu-01.example.org"],
    )
    """Name of the host, with or without its domain; it gets a line in the hosts file unless it has one."""
    time: TimeSettings | None = None
    """chrony as the time daemon; null: the one that is there is left alone."""
    kernel_args: list[Argument] = Field(default=[], examples=[["iommu=pt"]])
    """Arguments on the kernel's command line, after those of the profile. They take a reboot."""
    sysctl: dict[Key, int | Value] = Field(default={}, examples=[{"vm.swappiness": 1}])
    """Values of sysctl(8), by key."""
    limits: dict[
        Literal["nofile", "memlock", "nproc", "core", "stack", "sigpending", "msgqueue"],
        Annotated[int, Field(ge=0)] | Literal["infinity"],
    ] = Field(default={}, examples=[{"nofile": 1048576, "memlock": "infinity"}])
    """Limits of units that have none of their own (``DefaultLimit…=`` of systemd-system.conf(5))."""
    modules: ModuleSettings = ModuleSettings()
    """Kernel modules: what to load, options, blacklist."""
    governor: str | None = Field(default=None, pattern=r"^[a-z_]{1,30}$", examples=["performance"])
    """Governor of CPU frequency; null: the profile's."""
    journal_size: str | None = Field(default=None, pattern=r"^[1-9][0-9]*[KMGT]?$", examples=["4G"])
    """Disk space that the journal takes at most (``SystemMaxUse=``)."""
    protect_docker: bool = True
    """Debian and Ubuntu: keep needrestart from restarting Docker, containerd, NVIDIA's daemons and Triton,
    and unattended upgrades from packages of Docker and NVIDIA. On RHEL nothing is written for it."""
    reboot: Literal["allowed", "never"] = "never"
    """``allowed``: reboot where one is needed; ``never``: the run ends there without ``--reboot``."""
    reboot_timeout: int = Field(default=900, ge=30, le=7200)
    """Seconds within which a host must be back from a reboot."""

    @property
    def wanted(self) -> Wanted:
        """What is declared of the kernel."""
        options = {
            _module(name): {key: str(value) for key, value in values.items()}
            for name, values in self.modules.options.items()
        }
        return Wanted(
            tuple(dict.fromkeys((*PROFILES[self.profile].kernel_args, *self.kernel_args))),
            tuple(dict.fromkeys(map(_module, self.modules.load))),
            options,
            tuple(dict.fromkeys(map(_module, self.modules.blacklist))),
        )

    @property
    def cpu_governor(self) -> str:
        """The governor; empty where none is wanted."""
        return self.governor or PROFILES[self.profile].governor

    @property
    def kernel_values(self) -> dict[str, str]:
        """Values of sysctl as text."""
        return {key: str(value) for key, value in self.sysctl.items()}

    @property
    def manager_limits(self) -> dict[str, str]:
        """Limits by systemd's names."""
        return {f"DefaultLimit{name.upper()}": str(value) for name, value in self.limits.items()}


def _module(name: str) -> str:
    """A module's name as the kernel writes it."""
    return name.replace("-", "_")


def resources(settings: HostSettings, facts: Facts) -> list[AnyResource]:
    """Name, time, upgrades, limits, journal, modules, kernel values, governor; last what takes a reboot."""
    family = require_family(facts, "host")
    return [
        *_name(settings),
        *(_time(settings.time, facts, family) if settings.time else ()),
        *(_protection() if settings.protect_docker and family == "debian" else ()),
        *_limits(settings),
        *_journal(settings),
        *_kernel(settings, family, facts),
    ]


def _text(lines: Iterable[str]) -> bytes:
    return (HEADER + "".join(f"{line}\n" for line in lines)).encode()


def _file(path: str, lines: Iterable[str]) -> File | NoFile:
    """The file with these lines; without any, none."""
    found = list(lines)
    return File(path, _text(found)) if found else NoFile(path)


def _name(settings: HostSettings) -> list[AnyResource]:
    name = settings.hostname
    if not name:
        return [HostsEntry()]
    return [SharedFile("/etc/hostname", f"{name}\n".encode()), Hostname(name), HostsEntry(name)]


def _time(time: TimeSettings, facts: Facts, family: Family) -> list[AnyResource]:
    """chrony alone. Its packages take the place of other daemons' where those are packages."""
    debian = family == "debian"
    path = "/etc/chrony/sources.d/provision.sources" if debian else "/etc/chrony.conf"
    unit = "chrony.service" if debian else "chronyd.service"
    return [
        package_resource(
            facts,
            "chrony",
            (Package("chrony"),),
            hold=False,
            why=f"apt removes {' or '.join(OTHER_TIME_PACKAGES)} for it" if debian else "",
            replaces=OTHER_TIME_PACKAGES if debian else (),
        ),
        File(path, render("host/chrony.conf.j2", servers=time.servers, whole=not debian).encode()),
        *map(NoService, OTHER_TIME_DAEMONS),
        Service(unit, after=("packages:chrony",)),
        Handler(
            f"restart {unit}",
            on=(f"file:{path}",),
            script=f"restart_unit {unit} 60",
            covered_by=(f"service:{unit}:start",),
        ),
    ]


def _protection() -> list[AnyResource]:
    units = render("host/needrestart.conf.j2", units=RESTARTED_BY_NOBODY)
    return [File(NEEDRESTART, units.encode()), left_alone("host", LEFT_ALONE)]


def _limits(settings: HostSettings) -> list[AnyResource]:
    values = settings.manager_limits
    lines = ["[Manager]", *(f"{name}={value}" for name, value in values.items())] if values else []
    return [_file(LIMITS, lines), *([Limits(values)] if values else ()), _after_limits()]


def _after_limits() -> Handler:
    return Handler(
        "make systemd forget our limits",
        on=(gone(LIMITS),),
        script="reexecute_systemd",
        shell=(STEPS,),
        reloads_systemd=True,
    )


def _journal(settings: HostSettings) -> list[AnyResource]:
    lines = ["[Journal]", f"SystemMaxUse={settings.journal_size}"] if settings.journal_size else []
    return [_file(JOURNAL, lines), *([Journal(JOURNAL)] if lines else ()), _after_journal()]


def _after_journal() -> Handler:
    name = "restart systemd-journald.service without our size"
    return Handler(name, on=(gone(JOURNAL),), script="restart_journal", shell=(STEPS,))


def _kernel(settings: HostSettings, family: Family, facts: Facts) -> list[AnyResource]:
    wanted, values, governor = settings.wanted, settings.kernel_values, settings.cpu_governor
    permission = replace(REBOOT, how="--reboot allows it for this run, host.reboot: allowed for all")
    policy = RebootPolicy(
        facts.boot_id, permission, allowed=settings.reboot == "allowed", timeout=settings.reboot_timeout
    )
    modprobe = [
        *(
            f"options {m} " + " ".join(f"{k}={v}" for k, v in o.items())
            for m, o in wanted.options.items()
            if o
        ),
        *(f"blacklist {name}" for name in wanted.blacklist),
    ]
    return [
        *([File(LOAD, _text(wanted.load))] if wanted.load else ()),
        _file(MODPROBE, modprobe),
        *([Initramfs(MODPROBE)] if modprobe else ()),
        _after_modprobe(),
        *([KernelModules(wanted)] if wanted.load else ()),
        *([File(SYSCTL, _text(f"{key} = {value}" for key, value in values.items()))] if values else ()),
        *([KernelValues(values, SYSCTL)] if values else ()),
        *(_governor(governor) if governor else ()),
        *_command_line(wanted, family),
        *([KernelReboot(wanted, policy)] if wanted.arguments or modprobe else ()),
    ]


def _after_modprobe() -> Handler:
    name, shell = "rebuild the initramfs without our options of modules", ("shell/rebuild_initramfs.sh",)
    return Handler(name, on=(gone(MODPROBE),), script="rebuild_initramfs", shell=shell)


def _governor(governor: str) -> list[AnyResource]:
    path = f"/etc/systemd/system/{GOVERNOR}"
    return [
        File(path, render("host/provision-governor.service.j2", governor=governor).encode()),
        Handler(
            "reload systemd for the CPU governor",
            on=(f"file:{path}",),
            script="systemctl daemon-reload",
            reloads_systemd=True,
        ),
        Service(GOVERNOR),
        Governor(governor, GOVERNOR),
    ]


def _command_line(wanted: Wanted, family: Family) -> list[AnyResource]:
    """A file of GRUB's settings, then its entries. On RHEL the entries, then what tells which are ours."""
    if family == "rhel":
        note = File(KERNEL_ARGUMENTS, _text([f"ours {' '.join(wanted.arguments)}"]))
        return [CommandLine(wanted), *([note] if wanted.arguments else ())]
    line = f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {" ".join(wanted.arguments)}"'
    return [
        _file(GRUB, [line] if wanted.arguments else []),
        _after_grub(),
        *([CommandLine(wanted, GRUB)] if wanted.arguments else ()),
    ]


def _after_grub() -> Handler:
    name = "make the boot loader's entries without our arguments"
    return Handler(name, on=(gone(GRUB),), script="update_grub", shell=(STEPS,))


def removal() -> list[AnyResource]:
    """What the files brought about goes with them; on RHEL arguments go before the file that names them."""
    return [
        HostsEntry(),
        CommandLine(Wanted()),
        _after_limits(),
        _after_journal(),
        _after_modprobe(),
        _after_grub(),
    ]


EXAMPLE = {
    "profile": "h100",
    "hostname": "gpu-01.example.org",
    "time": {"servers": ["ntp1.example.org", "192.0.2.7"]},
    "kernel_args": ["transparent_hugepage=madvise"],
    "sysctl": {"vm.swappiness": 1, "net.ipv4.tcp_rmem": "4096 87380 268435456"},
    "limits": {"nofile": 1048576, "memlock": "infinity"},
    "modules": {"load": ["ib_umad"], "options": {"nvme_core": {"io_timeout": 60}}, "blacklist": ["pcspkr"]},
    "journal_size": "4G",
}

ROLE = Role("host", HostSettings, resources, order=5, removal=removal, example=EXAMPLE)
