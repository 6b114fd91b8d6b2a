"""Kernels and their headers: read by a real sh from the files of a host, and what is planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.facts import Family
from provision.probe import Output
from provision.resource import Change, Planned
from provision.resources.reboot import REBOOT, RebootPolicy
from provision.roles.driver.kernel import (
    Kernel,
    KernelHeaders,
    Kernels,
    NewestKernel,
    headers_of_later_kernels,
)
from provision.shell import assembled
from tests.unit.examples import H100, script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

OLD, NEW = "6.1.0-9-amd64", "6.1.0-32-amd64"


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """An empty host that runs the older of two kernels."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/proc/sys/kernel/osrelease", f"{OLD}\n")
    return made


def kernel(root: FakeRoot, release: str, *, headers: bool = False, packaged: bool = True) -> None:
    """Install a kernel as Debian does."""
    root.write(f"/boot/vmlinuz-{release}")
    root.write(f"/lib/modules/{release}/kernel/x.ko")
    if packaged:
        root.write(f"/var/lib/dpkg/info/linux-image-{release}.list", root.moved(f"/boot/vmlinuz-{release}\n"))
    if headers:
        root.write(f"/usr/src/linux-headers-{release}/Makefile")
        build = root.folder / f"lib/modules/{release}/build"
        build.symlink_to(f"../../../usr/src/linux-headers-{release}")


def asked(root: FakeRoot, family: Family = "debian") -> Kernels:
    wanted = [KernelHeaders(family)]
    return KernelHeaders.states(wanted, root.sh(script_of(KernelHeaders.probe(wanted))))["kernel-headers"]


def headers(release: str) -> str:
    return f"linux-headers-{release}"


# --- what is there --------------------------------------------------------------------------------


def test_the_newest_kernel_is_the_one_that_grub_would_start(root: FakeRoot) -> None:
    """By version, not by name or age; debug kernels and leftover folders do not count."""
    for release in (NEW, OLD, "6.1.0-100-amd64+debug"):
        kernel(root, release, headers=True)
    root.write("/lib/modules/6.1.0-99-amd64/updates/dkms/nvidia.ko")
    root.write("/boot/vmlinuz-0-rescue-0123456789abcdef")
    assert asked(root) == Kernels(Kernel(OLD, headers(OLD)), Kernel(NEW, headers(NEW)))
    assert root.calls == []


def test_without_an_installed_kernel_there_is_the_running_one(root: FakeRoot) -> None:
    """A container of a foreign kernel; nothing of it is known to any repository."""
    root.program("apt-cache")
    root.write("/var/lib/apt/lists/mirror_Packages", "Package: hello\n")
    found = asked(root)
    assert found == Kernels(*[Kernel(OLD, headers(OLD), False, False, False)] * 2)
    assert found.running.foreign
    assert KernelHeaders("debian").change(found, Planned()) is None
    assert KernelHeaders("debian").notes(found, Planned()) == (
        f"the running kernel {OLD} is not a package of this host: its headers cannot be installed",
    )
    coming = Planned((Change("packages:kernel-headers", "install", "", "", ""),))
    assert KernelHeaders("debian").notes(found, coming) == ()


@pytest.mark.parametrize(
    ("policy", "lists", "offered"),
    [
        ("  Installed: (none)\n  Candidate: 6.1.27-1\n", True, True),
        ("  Installed: (none)\n  Candidate: (none)\n", True, False),
        ("", True, False),
        ("", False, None),
    ],
)
def test_what_repositories_have(root: FakeRoot, policy: str, lists: bool, offered: bool | None) -> None:
    kernel(root, OLD)
    root.program("apt-cache", f"cat <<'END'\n{policy}END")
    if lists:
        root.write("/var/lib/apt/lists/mirror_Packages", "Package: hello\n")
    assert asked(root).running == Kernel(OLD, headers(OLD), False, True, offered)
    assert root.calls == [f"apt-cache policy {headers(OLD)}"]


@pytest.mark.parametrize(
    ("release", "package"),
    [
        ("5.14.0-427.13.1.el9_4.x86_64", "kernel-devel-5.14.0-427.13.1.el9_4.x86_64"),
        ("5.14.0-427.el9.aarch64+64k", "kernel-64k-devel-5.14.0-427.el9.aarch64"),
        ("5.15.0-200.131.27.el9uek.x86_64", "kernel-uek-devel-5.15.0-200.131.27.el9uek.x86_64"),
    ],
)
def test_on_rhel(root: FakeRoot, release: str, package: str) -> None:
    root.write("/proc/sys/kernel/osrelease", f"{release}\n")
    root.write(f"/lib/modules/{release}/vmlinuz")
    root.program("rpm", f"echo kernel-core-{release}")
    root.program("dnf", f"echo {package}-0:1")
    assert asked(root, "rhel") == Kernels(*[Kernel(release, package, False, True, True)] * 2)
    root.program("dnf", "exit 1")
    assert asked(root, "rhel").running.offered is None
    root.program("dnf")
    assert asked(root, "rhel").running.offered is False


def test_proxmox_calls_headers_by_its_own_name(root: FakeRoot) -> None:
    root.write("/proc/sys/kernel/osrelease", "6.8.12-4-pve\n")
    kernel(root, "6.8.12-4-pve", headers=True)
    assert asked(root).running.package == "proxmox-headers-6.8.12-4-pve"


def test_half_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="one or two kernels: sort: not found"):
        KernelHeaders.states([KernelHeaders("debian")], Output(0, b"", b"sort: not found\n"))


# --- headers --------------------------------------------------------------------------------------

HERE = Kernel(OLD, headers(OLD))
NEWER = Kernel(NEW, headers(NEW))
MISSING = Kernel(OLD, headers(OLD), False)
NEWER_MISSING = Kernel(NEW, headers(NEW), False)
GONE = Kernel(OLD, headers(OLD), False, True, False)
UNLISTED = Kernel(OLD, headers(OLD), False, True, None)
BEHIND = f"no repository has linux-headers-{OLD} for the running kernel: the driver can only be had for {NEW}"


@pytest.mark.parametrize(
    ("state", "installed", "note"),
    [
        (Kernels(HERE, HERE), "", ""),
        (Kernels(HERE, NEWER), "", ""),
        (Kernels(MISSING, NEWER), headers(OLD), ""),
        (Kernels(HERE, NEWER_MISSING), headers(NEW), ""),
        (Kernels(MISSING, NEWER_MISSING), f"{headers(OLD)} {headers(NEW)}", ""),
        (Kernels(UNLISTED, NEWER), headers(OLD), ""),
        (Kernels(GONE, NEWER), "", BEHIND),
        (Kernels(GONE, NEWER_MISSING), headers(NEW), BEHIND),
        (Kernels(GONE, GONE), headers(OLD), ""),
    ],
)
def test_headers_that_are_installed(state: Kernels, installed: str, note: str) -> None:
    change = KernelHeaders("debian").change(state, Planned())
    assert (change.script if change else "") == (f"install_headers_debian {installed}" if installed else "")
    assert "".join(KernelHeaders("debian").notes(state, Planned())) == note


def test_headers_are_proven_by_what_dkms_looks_for(root: FakeRoot) -> None:
    kernel(root, OLD)
    change = KernelHeaders("debian").change(Kernels(MISSING, MISSING), Planned())
    assert change
    assert change.reason == f"no headers of the running kernel {OLD}"
    assert "the headers of kernel 6.1.0-9-amd64 are missing" in root.words(change.done).err
    root.write(f"/lib/modules/{OLD}/build/Makefile")
    assert root.words(change.done).ok


@pytest.mark.parametrize(
    ("system", "kernel", "packages"),
    [
        ("debian 12", "6.1.0-32-amd64", "linux-headers-amd64"),
        ("debian 12", "6.1.0-32-cloud-amd64", "linux-headers-cloud-amd64"),
        ("debian 12", "6.1.0-32-rt-amd64", "linux-headers-rt-amd64"),
        ("debian 12", "6.12.12+bpo-arm64", "linux-headers-arm64"),
        ("debian 13", "6.12.38+deb13-arm64-16k", "linux-headers-arm64-16k"),
        ("debian 12", "6.18.44-foreign", "linux-headers-amd64"),
        ("ubuntu 22.04", "5.15.0-130-generic", "linux-headers-generic"),
        ("ubuntu 22.04", "6.8.0-52-generic", "linux-headers-generic-hwe-22.04"),
        ("ubuntu 24.04", "6.8.0-52-generic", "linux-headers-generic"),
        ("ubuntu 24.04", "6.11.0-17-generic", "linux-headers-generic-hwe-24.04"),
        ("ubuntu 24.04", "6.8.0-48-generic-64k", "linux-headers-generic-64k"),
        ("ubuntu 24.04", "6.8.0-1021-nvidia-64k", "linux-headers-nvidia-64k"),
        ("ubuntu 22.04", "6.8.0-1021-aws", "linux-headers-aws"),
        ("ubuntu 24.04", "6.18.44-foreign", "linux-headers-generic"),
        ("rhel 9.4", "5.14.0-427.el9.x86_64", "kernel-devel-matched kernel-headers"),
        ("rocky 8.10", "4.18.0-553.el8_10.x86_64", "kernel-devel kernel-headers"),
        ("rhel 9.4", "5.14.0-427.el9.aarch64+64k", "kernel-64k-devel-matched kernel-headers"),
        ("ol 9.4", "5.15.0-200.el9uek.x86_64", "kernel-uek-devel kernel-headers"),
    ],
)
def test_headers_of_later_kernels(system: str, kernel: str, packages: str) -> None:
    os, version = system.split()
    facts = replace(H100, os=os, version=version, kernel=kernel)
    assert " ".join(headers_of_later_kernels(facts)) == packages


# --- the newest kernel ----------------------------------------------------------------------------

POLICY = RebootPolicy("0a0a", REBOOT, timeout=600, causes=("packages:driver",))
UPGRADE = Change("packages:driver", "upgrade", "", "", "", signals=("package:nvidia-driver-cuda:upgrade",))


@pytest.mark.parametrize(
    ("state", "module", "moves", "reboots"),
    [
        (Kernels(HERE, NEWER), False, True, False),
        (Kernels(MISSING, NEWER), False, True, False),
        (Kernels(UNLISTED, NEWER), False, True, False),
        (Kernels(GONE, NEWER), False, False, True),
        (Kernels(GONE, NEWER), True, False, False),
        (Kernels(GONE, NEWER), True, True, True),
        (Kernels(GONE, GONE), False, True, False),
    ],
)
def test_when_the_newest_kernel_must_be_booted(
    state: Kernels, module: bool, moves: bool, reboots: bool
) -> None:
    wanted = NewestKernel("debian", POLICY, ("nvidia-driver-cuda",))
    change = wanted.change((state, module), Planned((UPGRADE,) if moves else ()))
    assert bool(change) == reboots
    if change:
        assert (change.resource, change.action, change.needs, change.reboot) == (
            "newest-kernel",
            "reboot",
            REBOOT,
            600,
        )
        assert change.reason == BEHIND
        assert change.causes == (("packages:driver",) if module else ())
        assert (
            "container web (image) stops"
            in wanted.refine(change, Output(0, b"container 0123 image web\n")).impact
        )


@pytest.mark.parametrize("module", [True, False])
def test_the_module_of_the_running_kernel_is_found(root: FakeRoot, module: bool) -> None:
    kernel(root, OLD)
    if module:
        root.write(f"/lib/modules/{OLD}/updates/dkms/nvidia.ko.xz")
    root.program("apt-cache")
    wanted = [NewestKernel("debian", POLICY)]
    found = NewestKernel.states(wanted, root.sh(script_of(NewestKernel.probe(wanted))))
    assert found == {"newest-kernel": (Kernels(UNLISTED, UNLISTED), module)}


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("updates/dkms/nvidia.ko", True),
        ("updates/dkms/nvidia-current.ko", True),
        ("updates/dkms/nvidia-current-open.ko", True),
        ("updates/dkms/nvidia-tesla-470.ko", True),
        ("extra/nvidia.ko.xz", True),
        ("extra/drivers/video/nvidia/nvidia.ko", True),
        ("weak-updates/nvidia.ko", True),
        ("kernel/nvidia-580srv-open/nvidia.ko.zst", True),
        ("updates/dkms/nvidia-uvm.ko", False),
        ("updates/dkms/nvidia-current-uvm.ko", False),
        ("updates/dkms/nvidia-fs.ko", False),
        ("kernel/drivers/video/fbdev/nvidia/nvidiafb.ko", False),
        ("build/nvidia.ko", False),
    ],
)
def test_where_packages_put_the_module(root: FakeRoot, file: str, found: bool) -> None:
    written = root.write(f"/lib/modules/{OLD}/{file}")
    told = root.sh(f"{assembled('driver/kernels.sh')}find_driver_module {OLD}; echo $driver_file").out.strip()
    assert told == (str(written) if found else "")
    written.unlink()
    written.symlink_to("/nowhere")
    assert root.sh(f"{assembled('driver/kernels.sh')}find_driver_module {OLD}; echo $driver_file").out == "\n"
