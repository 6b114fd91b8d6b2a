"""What cannot change on a host during a run: its system, architecture, kernel and GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from provision.gpu.pci import Architecture, architecture_of
from provision.probe import Output, Probe

DISPLAY_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
"""PCI classes of GPUs: VGA, 3D controller, other display controller, processing accelerator."""

BRIDGE_CLASS = "0x0680"
"""PCI class of NVSwitches up to NVLink 4: other bridge."""

RHEL_FAMILY = ("rhel", "rocky", "almalinux", "centos", "ol")
"""Systems with RHEL's packages, by ``ID`` of os-release."""

SUPPORTED = "supported: Debian 12 and 13, Ubuntu 22.04 and 24.04, RHEL, Rocky and AlmaLinux 8 and 9"
"""What to say of a system that no role knows."""

Family = Literal["debian", "rhel"]
"""Whose packages a system has: apt's or dnf's."""

BOOT_ID = r"[0-9a-f][0-9a-f-]{0,35}"
"""Pattern of what changes with every boot."""

WORD = r"[A-Za-z0-9][A-Za-z0-9._+~:@-]{0,99}"
"""Pattern of names and versions of systems and kernels: they become parts of commands and addresses."""

FACTS = "shell/facts.sh"

PROBES = (
    Probe("os-release", "lines_of /etc/os-release", (FACTS,), in_place=True),
    Probe("system", "system_facts", (FACTS,), in_place=True),
    Probe("pci", "nvidia_devices", (FACTS,), in_place=True),
    Probe("nvlink5", "nvlink5_switch", (FACTS,), in_place=True),
    Probe("secure-boot", "secure_boot_variable", (FACTS,), in_place=True),
)
"""The questions behind :class:`Facts`."""

VIRTUALIZATION = Probe("virtualization", "systemd-detect-virt 2>/dev/null || :")
"""A question that only people have: no role branches on its answer."""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU on the PCI bus, known without a driver.

    :ivar address: ``DOMAIN:BUS:DEVICE.FUNCTION`` as sysfs has it.
    :ivar device: the PCI device id.
    """

    address: str
    device: int

    @property
    def architecture(self) -> Architecture | None:
        """The GPU's generation, or None for a device id that we do not know."""
        return architecture_of(self.device)


@dataclass(frozen=True)
class Facts:
    """What roles may branch on.

    :ivar os: ``ID`` of os-release(5): ``debian``, ``ubuntu``, ``rhel``, ``rocky``.
    :ivar version: ``VERSION_ID``: ``12``, ``24.04``.
    :ivar machine: of uname: ``x86_64``, ``aarch64``.
    :ivar architecture: dpkg's name of it: ``amd64``, ``arm64``; empty where there is no dpkg.
    :ivar kernel: release of the running kernel.
    :ivar boot_id: changes with every boot.
    :ivar virtualization: of systemd-detect-virt(1): ``none``, ``kvm``, …; empty where that was not asked.
    :ivar secure_boot: whether the firmware enforces it; False where there is no UEFI.
    :ivar nvswitches: NVSwitches on the PCI bus (up to NVLink 4, as on HGX A100 and H100).
    :ivar nvlink5: whether a switch manager of NVLink 5 is there (HGX B200, NVL72).
    :ivar declared_driver: the version of NVIDIA's driver that an earlier role's settings ask for, exact or
        ``580.*``; empty where none does, and of a host that was only asked.
    :ivar user: the number of the user who asked; only root, 0, sees all that roles look at.
    """

    os: str
    version: str
    codename: str
    machine: str
    architecture: str
    kernel: str
    boot_id: str
    virtualization: str
    secure_boot: bool
    gpus: tuple[Gpu, ...] = ()
    nvswitches: int = 0
    nvlink5: bool = False
    declared_driver: str = ""
    user: int = 0

    def document(self) -> dict[str, Any]:
        """What the host itself has told, for ``--json``."""
        return {key: value for key, value in asdict(self).items() if key not in ("declared_driver", "user")}

    @property
    def family(self) -> Family | None:
        """Whose packages the system has; None for one that we do not know."""
        if self.os in RHEL_FAMILY:
            return "rhel"
        return "debian" if self.architecture else None

    @property
    def major(self) -> str:
        """The first part of the version: ``9`` of ``9.4``."""
        return self.version.partition(".")[0]

    @property
    def has_nvswitch(self) -> bool:
        """Whether the GPUs are joined by switches, which need the Fabric Manager."""
        return self.nvswitches > 0 or self.nvlink5

    @property
    def system(self) -> str:
        """System and version in one word for messages: ``debian 12``."""
        return f"{self.os} {self.version}".strip()


def parse(answers: Mapping[str, Output]) -> Facts:
    """Read the answers to :data:`PROBES`, and to :data:`VIRTUALIZATION` if it was asked.

    :raises ValueError: if the system cannot be told.
    """
    release = _os_release(answers["os-release"].out)
    devices = [_device(line) for line in answers["pci"].out.splitlines()]
    lines = answers["system"].out.split("\n")
    if len(lines) < 4 or "ID" not in release:
        raise ValueError("no /etc/os-release or no uname: not a Linux system that we know")
    return Facts(
        os=_told("ID of os-release", release["ID"]),
        version=_told("VERSION_ID of os-release", release.get("VERSION_ID", ""), f"({WORD})?"),
        codename=_told("VERSION_CODENAME of os-release", release.get("VERSION_CODENAME", ""), f"({WORD})?"),
        kernel=_told("the kernel's release", lines[0]),
        machine=_told("the machine", lines[1]),
        architecture=_told("dpkg's architecture", lines[2], f"({WORD})?"),
        boot_id=_told("the boot's id", lines[3], BOOT_ID),
        user=int(_told("the user", lines[4], "[0-9]{1,10}")) if len(lines) > 4 and lines[4] else 0,
        virtualization=answers["virtualization"].out.strip() or "none" if "virtualization" in answers else "",
        secure_boot=answers["secure-boot"].out.strip() == "1",
        gpus=tuple(
            Gpu(address, int(device, 16))
            for address, klass, device in devices
            if klass.startswith(DISPLAY_CLASSES)
        ),
        nvswitches=sum(klass.startswith(BRIDGE_CLASS) for _, klass, _ in devices),
        nvlink5=answers["nvlink5"].out.strip() == "yes",
    )


def _told(what: str, text: str, pattern: str = WORD) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError(f"{what} makes no sense: {text[:100]!r}")
    return text


def _device(line: str) -> tuple[str, str, str]:
    address, klass, device = _told(
        "a PCI device", line, r"[0-9a-fA-F:.]+ 0x[0-9a-f]+ 0x[0-9a-f]{1,4}"
    ).split()
    return address, klass, device


def _os_release(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
