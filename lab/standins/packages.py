"""What the stand-in packages are called, hold and depend on, as in NVIDIA's repository for Debian 12."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DRIVERS = {"590.48.01-1": 13010, "580.159.04-1": 13000, "570.211.01-1": 12080}
"""Package version of each driver → the CUDA version that it speaks, as cuDriverGetVersion returns it."""

TOOLKITS = ("1.20.0-1", "1.19.1-1")

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm")


@dataclass(frozen=True)
class Entry:
    """A file of a package: where its bytes come from and its mode.

    :ivar source: a path below the build directory (``built/…``) or below the sources; ``link:TARGET`` is a
        symlink and ``text:…`` the content itself.
    :ivar upstream: what stands for ``@UPSTREAM@`` in it.
    """

    source: str
    mode: int = 0o644
    upstream: str = ""


@dataclass(frozen=True)
class Package:
    """One binary package.

    :ivar scripts: maintainer script → its source below ``debian/``.
    :ivar kernel: what stands for ``@KERNEL@`` in the scripts.
    """

    name: str
    version: str
    summary: str
    files: Mapping[str, Entry]
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    kernel: str = ""

    @property
    def upstream(self) -> str:
        return self.version.rpartition("-")[0]


def driver_packages(version: str) -> Iterator[Package]:
    """The packages of one driver version; all depend on exactly that version of each other."""
    upstream = version.rpartition("-")[0]
    built = f"built/driver-{upstream}"
    same = f"(= {version})"
    yield Package(
        "libnvidia-ml1",
        version,
        "NVIDIA Management Library (NVML) runtime library",
        {
            f"{LIBRARIES}/libnvidia-ml.so.{upstream}": Entry(f"{built}/libnvidia-ml.so"),
            f"{LIBRARIES}/libnvidia-ml.so.1": Entry(f"link:libnvidia-ml.so.{upstream}"),
        },
        depends=("libc6 (>= 2.34)",),
    )
    yield Package(
        "libcuda1",
        version,
        "NVIDIA CUDA Driver Library",
        {
            f"{LIBRARIES}/libcuda.so.{upstream}": Entry(f"{built}/libcuda.so"),
            f"{LIBRARIES}/libcuda.so.1": Entry(f"link:libcuda.so.{upstream}"),
            f"{LIBRARIES}/libcuda.so": Entry("link:libcuda.so.1"),
        },
        depends=("libc6 (>= 2.34)",),
    )
    yield Package(
        "nvidia-modprobe",
        version,
        "utility to load NVIDIA kernel modules and create device nodes",
        {"/usr/bin/nvidia-modprobe": Entry(f"{built}/nvidia-modprobe", 0o4755)},
        depends=("kmod",),
    )
    yield Package(
        "nvidia-persistenced",
        version,
        "daemon to maintain persistent software state in the NVIDIA driver",
        {
            "/usr/bin/nvidia-persistenced": Entry(f"{built}/nvidia-persistenced", 0o755),
            "/lib/systemd/system/nvidia-persistenced.service": Entry("files/nvidia-persistenced.service"),
        },
        depends=("passwd", f"libnvidia-ml1 {same}", f"nvidia-modprobe {same}"),
        scripts={
            "postinst": "nvidia-persistenced.postinst",
            "prerm": "nvidia-persistenced.prerm",
            "postrm": "nvidia-persistenced.postrm",
        },
    )
    yield Package(
        "nvidia-driver-cuda",
        version,
        "NVIDIA driver: compute part",
        {"/usr/bin/nvidia-smi": Entry(f"{built}/nvidia-smi", 0o755)},
        depends=(
            f"libcuda1 {same}",
            f"libnvidia-ml1 {same}",
            f"nvidia-modprobe {same}",
            f"nvidia-persistenced {same}",
            f"nvidia-kernel-dkms {same} | nvidia-kernel-open-dkms {same}",
        ),
    )
    yield Package(
        "firmware-nvidia-gsp",
        version,
        "NVIDIA GSP firmware",
        {f"/lib/firmware/nvidia/{upstream}/gsp_ga10x.bin": Entry("text:stand-in, not firmware\n")},
    )
    yield Package(
        "nvidia-kernel-support",
        version,
        "NVIDIA kernel module support files",
        {
            "/lib/modprobe.d/nvidia-blacklists-nouveau.conf": Entry("text:blacklist nouveau\n"),
            "/lib/modules-load.d/nvidia.conf": Entry("text:nvidia\n"),
        },
    )
    branch = upstream.partition(".")[0]
    yield _fabric_manager(version)
    yield Package(
        f"nvidia-driver-pinning-{branch}",
        f"{branch}-1",
        f"apt preferences that keep the NVIDIA driver on branch {branch}",
        {
            f"/etc/apt/preferences.d/nvidia-driver-pinning-{branch}": Entry(
                "text:Package: nvidia-driver-cuda nvidia-kernel-* nvidia-modprobe nvidia-persistenced"
                " libnvidia-ml1 libcuda1 firmware-nvidia-gsp\n"
                f"Pin: version {branch}.*\nPin-Priority: 1000\n"
            )
        },
        conffiles=(f"/etc/apt/preferences.d/nvidia-driver-pinning-{branch}",),
    )
    for flavour, name, other in (
        ("open", "nvidia-kernel-open-dkms", "nvidia-kernel-dkms"),
        ("proprietary", "nvidia-kernel-dkms", "nvidia-kernel-open-dkms"),
    ):
        yield _kernel_package(version, flavour, name, other)


def _fabric_manager(version: str) -> Package:
    """Its name says the branch up to 570, and no longer from 580 on."""
    upstream = version.rpartition("-")[0]
    branch = upstream.partition(".")[0]
    name = "nvidia-fabricmanager" if int(branch) >= 580 else f"nvidia-fabricmanager-{branch}"
    return Package(
        name,
        version,
        "Fabric Manager for NVSwitch based systems",
        {
            "/usr/bin/nv-fabricmanager": Entry("files/nv-fabricmanager", 0o755, upstream),
            "/usr/share/nvidia/nvswitch/fabricmanager.cfg": Entry("text:LOG_LEVEL=4\nDAEMONIZE=1\n"),
            "/lib/systemd/system/nvidia-fabricmanager.service": Entry("files/nvidia-fabricmanager.service"),
        },
        conflicts=("nvidia-fabricmanager",) if name != "nvidia-fabricmanager" else (),
        provides=("nvidia-fabricmanager",) if name != "nvidia-fabricmanager" else (),
        scripts={
            "postinst": "nvidia-fabricmanager.postinst",
            "prerm": "nvidia-fabricmanager.prerm",
            "postrm": "nvidia-fabricmanager.postrm",
        },
    )


def _kernel_package(version: str, flavour: str, name: str, other: str) -> Package:
    upstream = version.rpartition("-")[0]
    built = f"built/driver-{upstream}"
    files = {
        f"/usr/src/nvidia-{upstream}/{module}.ko": Entry(f"{built}/{flavour}/{module}.ko")
        for module in MODULES
    }
    files |= {
        "/usr/lib/nvidia-standin/module": Entry(f"{built}/module", 0o755),
        "/lib/modprobe.d/nvidia-standin.conf": Entry(f"files/modprobe-{flavour}.conf"),
    }
    return Package(
        name,
        version,
        f"NVIDIA {flavour} kernel module DKMS source",
        files,
        depends=(
            "dkms",
            "kmod",
            f"nvidia-kernel-support (= {version})",
            f"firmware-nvidia-gsp (= {version})",
        ),
        conflicts=(other,),
        provides=(f"nvidia-kernel-{upstream}",),
        scripts={"postinst": "kernel-dkms.postinst", "prerm": "kernel-dkms.prerm"},
    )


def toolkit_packages(version: str) -> Iterator[Package]:
    """The four packages of one toolkit version, related as NVIDIA's are."""
    program = f"built/toolkit-{version.rpartition('-')[0]}/toolkit"
    binary = Entry(program, 0o755)
    yield Package(
        "libnvidia-container1",
        version,
        "NVIDIA container runtime library",
        {f"{LIBRARIES}/libnvidia-container.so.1": Entry("text:stand-in, not a library\n")},
    )
    yield Package(
        "libnvidia-container-tools",
        version,
        "NVIDIA container runtime library (command-line tools)",
        {"/usr/bin/nvidia-container-cli": binary},
        depends=(f"libnvidia-container1 (>= {version})",),
    )
    yield Package(
        "nvidia-container-toolkit-base",
        version,
        "NVIDIA Container Toolkit Base",
        {
            "/usr/bin/nvidia-ctk": binary,
            "/usr/bin/nvidia-cdi-hook": binary,
            "/usr/bin/nvidia-container-runtime": binary,
            "/lib/systemd/system/nvidia-cdi-refresh.service": Entry("files/nvidia-cdi-refresh.service"),
            "/lib/systemd/system/nvidia-cdi-refresh.path": Entry("files/nvidia-cdi-refresh.path"),
        },
        scripts={
            "postinst": "nvidia-container-toolkit-base.postinst",
            "prerm": "nvidia-container-toolkit-base.prerm",
            "postrm": "nvidia-container-toolkit-base.postrm",
        },
    )
    yield Package(
        "nvidia-container-toolkit",
        version,
        "NVIDIA Container toolkit",
        {"/usr/bin/nvidia-container-runtime-hook": binary},
        depends=(
            f"nvidia-container-toolkit-base (= {version})",
            f"libnvidia-container-tools (>= {version})",
            "libnvidia-container-tools (<< 2.0.0)",
        ),
    )


def newer_kernel() -> str:
    """The release of a kernel newer than the one that runs here: the next minor version."""
    major, minor, *_ = platform.release().split(".")
    return f"{major}.{int(minor) + 1}.0-1-amd64"


def kernel_packages() -> Iterator[Package]:
    """What Debian has for its own kernels: DKMS, the running kernel's headers, and a newer kernel."""
    yield Package(
        "dkms",
        "1:3.2.1-1",
        "Dynamic Kernel Module System",
        {
            "/usr/sbin/dkms": Entry("files/dkms", 0o755),
            "/etc/kernel/postinst.d/dkms": Entry("files/dkms-kernel-hook", 0o755),
            "/etc/kernel/header_postinst.d/dkms": Entry("files/dkms-kernel-hook", 0o755),
        },
        depends=("kmod",),
        conffiles=("/etc/kernel/postinst.d/dkms", "/etc/kernel/header_postinst.d/dkms"),
    )
    running, newer = platform.release(), newer_kernel()
    for release, version in ((running, "6.0-1"), (newer, "6.1-1")):
        yield Package(
            _headers(release),
            version,
            f"header files for Linux {release}",
            {
                f"/usr/src/linux-headers-{release}/Makefile": Entry("text:# stand-in, not kernel headers\n"),
                f"/lib/modules/{release}/build": Entry(f"link:/usr/src/linux-headers-{release}"),
            },
            scripts={"postinst": "linux-headers.postinst"},
            kernel=release,
        )
    yield Package(
        "linux-headers-amd64",
        "6.0-1",
        "header files for Linux amd64 (meta package)",
        {},
        depends=(_headers(running),),
    )
    yield Package(
        f"linux-image-{newer}",
        "6.1-1",
        f"Linux {newer}",
        {
            f"/boot/vmlinuz-{newer}": Entry("text:stand-in, not a kernel\n"),
            f"/lib/modules/{newer}/modules.builtin": Entry("text:"),
            f"/lib/modules/{newer}/modules.order": Entry("text:"),
        },
        depends=("kmod",),
        scripts={"postinst": "linux-image.postinst"},
        kernel=newer,
    )


def _headers(release: str) -> str:
    """The package that has a kernel's headers; package names have no underscore and no capitals."""
    return f"linux-headers-{release.replace('_', '-').lower()}"


def all_packages() -> Iterator[Package]:
    """Every stand-in package, in no particular order."""
    for driver in DRIVERS:
        yield from driver_packages(driver)
    for toolkit in TOOLKITS:
        yield from toolkit_packages(toolkit)
    yield from kernel_packages()
