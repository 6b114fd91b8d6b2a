"""Which packages make up the driver: one row for each system, source and range of branches.

Names are written as in the package index, with ``{branch}`` for the driver's branch; several are separated
by blanks. A row that says "unconfirmed" rests on the pattern of its neighbours and not on a listing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ANY = 999
"""Last branch of a range that goes on."""

GUIDE = "NVIDIA Driver Installation Guide"
"""Of NVIDIA's documentation for data centre drivers; releases 580 to 620 of it were read."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    :ivar systems: ``ID VERSION`` of os-release, the version as far as it counts: ``debian 12``, ``rhel 9``.
    :ivar source: ``archive`` or ``cuda``; a mirror carries what ``cuda`` does.
    :ivar branches: first and last branch.
    :ivar userland: compute-only packages at the driver's version.
    :ivar open: kernel module packages at the driver's version; empty where this flavour is not there.
    :ivar proprietary: the same for the other flavour.
    :ivar document: where the names come from.
    :ivar proof: package whose version is the driver's: a transitional package brings another one.
    :ivar beside: packages with versions of their own.
    :ivar prebuilt: prefix of packages with modules that are built and signed already, for the open flavour
        and the proprietary one; a kernel's release or flavour follows after ``-``.
    :ivar no_dkms: userland instead of the above where prebuilt modules are taken, both flavours likewise.
    :ivar pinning: package that keeps apt on the branch; it has to be there before the driver.
    :ivar stream: stream of the dnf module ``nvidia-driver``, both flavours likewise.
    :ivar fabric_manager: package with the Fabric Manager; empty where the source has none.
    :ivar subnet_manager: what NVLink 5 needs beside it.
    :ivar components: of the distribution's archive that must be enabled.
    :ivar exact: why an exact version has to be set, both flavours likewise; empty where it need not be.
    :ivar caution: what an operator should know of these packages, both flavours likewise.
    """

    systems: tuple[str, ...]
    source: str
    branches: tuple[int, int]
    userland: str
    open: str
    proprietary: str
    document: str
    proof: str
    beside: str = ""
    prebuilt: tuple[str, str] = ("", "")
    no_dkms: tuple[str, str] = ("", "")
    pinning: str = ""
    stream: tuple[str, str] = ("", "")
    fabric_manager: str = ""
    subnet_manager: str = ""
    components: str = ""
    exact: tuple[str, str] = ("", "")
    caution: tuple[str, str] = ("", "")


EPEL = "dkms comes from EPEL, which has to be enabled on the host or be part of the mirror"


def _server(tail: str) -> tuple[str, str]:
    """Ubuntu's names of both flavours: ``…-580-server-open`` and ``…-580-server``."""
    return tail + "-{branch}-server-open", tail + "-{branch}-server"


RHEL = tuple(f"{name} {major}" for name in ("rhel", "rocky", "almalinux") for major in (8, 9))
UBUNTU = ("ubuntu 22.04", "ubuntu 24.04")

# Rows that others differ from in a few fields.
DEBIAN_13 = Row(
    ("debian 13",),
    "archive",
    (550, 550),
    userland="nvidia-smi libcuda1 firmware-nvidia-gsp",
    open="nvidia-open-kernel-dkms",
    proprietary="nvidia-kernel-dkms",
    beside="nvidia-persistenced nvidia-modprobe",
    proof="libcuda1",
    components="contrib non-free non-free-firmware",
    document="Debian package listings, trixie: nvidia-graphics-drivers, nvidia-open-gpu-kernel-modules;"
    " apt resolves them",
)
NVIDIA_DEBIAN_12 = Row(
    ("debian 12",),
    "cuda",
    (560, ANY),
    userland="nvidia-driver-cuda",
    open="nvidia-kernel-open-dkms",
    proprietary="nvidia-kernel-dkms",
    proof="nvidia-driver-cuda",
    pinning="nvidia-driver-pinning-{branch}",
    fabric_manager="nvidia-fabricmanager-{branch} nvidia-fabricmanager",
    subnet_manager="nvlsm",
    document=f"{GUIDE}, Debian: compute-only system; Recent Updates: version locking packages;"
    " NVIDIA Fabric Manager User Guide",
)

TABLE = (
    # ── Debian's own: libcuda1 and its like carry the driver's version, the daemons one of their own.
    # nvidia-persistenced takes libnvidia-cfg1 of the newest branch, which hides an older one from modprobe.
    replace(
        DEBIAN_13,
        systems=("debian 12",),
        branches=(535, 535),
        document="Debian package listings, bookworm: nvidia-graphics-drivers, nvidia-open-gpu-kernel-modules;"
        " apt resolves them",
        exact=(
            "Debian 12's security updates have raised the libraries and not the open modules, so that apt"
            " has to be told a version that both have",
            "",
        ),
        caution=(
            "Debian 12's open modules 535.261.03 do not compile for its kernel 6.1.0-56 any more;"
            " its proprietary ones do",
            "",
        ),
    ),
    Row(
        ("debian 12",),
        "archive",
        (470, 470),
        userland="nvidia-tesla-470-smi libnvidia-tesla-470-cuda1 libnvidia-tesla-470-cfg1",
        open="",
        proprietary="nvidia-tesla-470-kernel-dkms",
        beside="nvidia-persistenced nvidia-modprobe",
        proof="libnvidia-tesla-470-cuda1",
        components="contrib non-free",
        document="Debian package listings, bookworm: nvidia-graphics-drivers-tesla-470; apt resolves them",
    ),
    DEBIAN_13,
    Row(
        ("debian 13",),
        "archive",
        (535, 535),
        userland="nvidia-tesla-535-smi libnvidia-tesla-535-cuda1 libnvidia-tesla-535-cfg1"
        " firmware-nvidia-tesla-535-gsp",
        open="",
        proprietary="nvidia-tesla-535-kernel-dkms",
        beside="nvidia-persistenced nvidia-modprobe",
        proof="libnvidia-tesla-535-cuda1",
        components="contrib non-free non-free-firmware",
        document="Debian package listings, trixie: nvidia-graphics-drivers-tesla-535; apt resolves them",
    ),
    # ── Ubuntu's own: the "server" packages; signed modules of every kernel first, DKMS where there are none.
    Row(
        UBUNTU,
        "archive",
        (470, 470),
        userland="nvidia-headless-470-server nvidia-utils-470-server nvidia-compute-utils-470-server",
        open="",
        proprietary="nvidia-dkms-470-server",
        prebuilt=("", "linux-modules-nvidia-470-server"),
        no_dkms=("", "nvidia-headless-no-dkms-470-server"),
        proof="nvidia-utils-470-server",
        fabric_manager="nvidia-fabricmanager-470",
        components="restricted multiverse",
        document="Ubuntu package listings, jammy-updates, noble-updates: nvidia-graphics-drivers-470-server",
    ),
    Row(
        UBUNTU,
        "archive",
        (535, ANY),
        userland="nvidia-utils-{branch}-server nvidia-compute-utils-{branch}-server",
        open="nvidia-headless-{branch}-server-open nvidia-dkms-{branch}-server-open",
        proprietary="nvidia-headless-{branch}-server nvidia-dkms-{branch}-server",
        prebuilt=_server("linux-modules-nvidia"),
        no_dkms=_server("nvidia-headless-no-dkms"),
        proof="nvidia-utils-{branch}-server",
        fabric_manager="nvidia-fabricmanager-{branch}",
        components="restricted multiverse",
        document="Ubuntu package listings, jammy-updates and noble-updates: nvidia-graphics-drivers-*-server,"
        " linux-restricted-modules, fabric-manager-*",
    ),
    # ── NVIDIA's repository, and mirrors of it.
    NVIDIA_DEBIAN_12,
    replace(NVIDIA_DEBIAN_12, systems=("debian 13",), branches=(590, ANY)),
    replace(
        NVIDIA_DEBIAN_12,
        systems=UBUNTU,
        branches=(535, 589),
        userland="libnvidia-compute-{branch} nvidia-utils-{branch} nvidia-compute-utils-{branch}"
        " nvidia-modprobe",
        open="nvidia-dkms-{branch}-open",
        proprietary="nvidia-dkms-{branch}",
        proof="libnvidia-compute-{branch}",
        document=f"{GUIDE}, Ubuntu: compute-only system; Recent Updates: Ubuntu 590 package renames;"
        " NVIDIA Fabric Manager User Guide",
    ),
    replace(
        NVIDIA_DEBIAN_12,
        systems=UBUNTU,
        branches=(590, ANY),
        userland="libnvidia-compute nvidia-persistenced nvidia-modprobe",
        open="nvidia-dkms-open",
        proprietary="nvidia-dkms",
        proof="libnvidia-compute",
        document=f"{GUIDE}, Ubuntu: compute-only system; Recent Updates: Ubuntu 590 package renames;"
        " NVIDIA Fabric Manager User Guide (nvidia-persistenced, nvidia-modprobe: unconfirmed)",
    ),
    Row(
        RHEL,
        "cuda",
        (560, ANY),
        userland="nvidia-driver-cuda nvidia-persistenced nvidia-modprobe",
        open="kmod-nvidia-open-dkms",
        proprietary="kmod-nvidia-latest-dkms",
        proof="nvidia-driver-cuda",
        stream=("{branch}-open", "{branch}-dkms"),
        fabric_manager="nvidia-fabric-manager nvidia-fabricmanager",
        subnet_manager="nvlsm",
        document=f"{GUIDE}, Red Hat Enterprise Linux 8 and 9: compute-only system, Kernel Modules;"
        " NVIDIA yum-packaging-dkms-nvidia, yum-packaging-fabric-manager",
        caution=(EPEL, EPEL),
    ),
)
"""The table. Where ``fabric_manager`` has two names, the second one is that of branches from 580 on."""

ONE_NAME_FROM = 580
"""Branch from which NVIDIA's Fabric Manager package has one name for all branches."""

PINNING_FROM = 590
"""Branch from which NVIDIA's packages have lost the branch in their names on Ubuntu, and need the pinning
package (driver installation guide, Recent Updates: version locking packages)."""

SWAPPED = {565: 580, 575: 580}
"""Branches whose packages in Ubuntu's archive are transitional, and what is installed instead of them."""

PINNED = (
    "nvidia-*",
    "libnvidia-*",
    "libcuda*",
    "libnvcuvid*",
    "firmware-nvidia-*",
    "xserver-xorg-video-nvidia*",
    "cuda-drivers*",
)
"""Globs over everything that carries the driver's version, for apt's preferences. Versions that are not of
the branch are not touched by such a pin, so nvidia-container-toolkit does not mind being in here."""

FAMILY = {
    "debian": (
        "libcuda1",
        "libnvidia-compute*",
        "libnvidia-tesla-*-cuda1",
        "nvidia-dkms*",
        "nvidia-driver-cuda",
        "nvidia-kernel-dkms",
        "nvidia-kernel-open-dkms",
        "nvidia-open-kernel-dkms",
        "nvidia-tesla-*kernel-dkms",
        "nvidia-utils-*",
    ),
    "rhel": (
        "nvidia-driver",
        "nvidia-driver-cuda*",
        "nvidia-driver-libs",
        "kmod-nvidia*",
        "nvidia-kmod-common",
    ),
}
"""Globs that find the installed driver of any branch and source, by family; their version is the driver's."""
