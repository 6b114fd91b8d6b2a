"""The driver role: which packages and modules a host gets, and what is refused.

The golden files hold every system × GPU set × branch that we promise. ``RENEW_GOLDEN=1 pytest
tests/unit/test_driver.py`` writes them anew; look at the difference in git.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import Refusal
from provision.facts import Facts, Gpu
from provision.gpu.pci import (
    FIRST_BY_DEVICE,
    GRACE_HOPPER,
    RANGES,
    Architecture,
    architecture_of,
    first_branch,
    last_branch,
    needs_open,
    supports_open,
)
from provision.probe import Output
from provision.resource import ABSENT, Permission, Planned
from provision.resources.packages.deb import Packages, PackageState
from provision.resources.packages.rpm import RpmPackages
from provision.roles.driver.foreign import NoForeignDriver
from provision.roles.driver.packages.cuda import refuse_foreign_repository
from provision.roles.driver.packages.flavour import choose_flavour, unknown_gpus
from provision.roles.driver.packages.table import FAMILY, TABLE, Row
from provision.roles.driver.packages.ubuntu import kernel_of_metapackage
from provision.roles.driver.role import BRANCH_CHANGE, DriverSettings, resources
from tests.unit.examples import H100, REPO, settings_of


def gpus(*devices: int) -> tuple[Gpu, ...]:
    return tuple(Gpu(f"0000:{n:02x}:00.0", device) for n, device in enumerate(devices))


def role(facts: Facts = H100, **changes: Any) -> dict[str, Any]:
    """The resources of the role by id."""
    settings = settings_of("driver", **{"version": None, **changes})
    assert isinstance(settings, DriverSettings)
    return {resource.id: resource for resource in resources(settings, facts)}


def archive(facts: Facts, **changes: Any) -> dict[str, Any]:
    return role(facts, source="archive", repo=None, **changes)


def names(found: dict[str, Any]) -> list[str]:
    return [package.name for package in found["packages:driver"].packages]


NOBLE = replace(H100, os="ubuntu", version="24.04", codename="noble", kernel="6.8.0-45-generic")


# --- flavour --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "wanted", "branch", "says"),
    [
        ((0x15F8,), "open", 580, r"the open modules do not drive Pascal \(0x15f8\)"),
        ((0x1DB4, 0x2330), "open", 580, r"the open modules do not drive Volta \(0x1db4\)"),
        ((0x2901,), "proprietary", 580, r"the proprietary modules do not drive Blackwell \(0x2901\)"),
        ((0x2342,), "proprietary", 580, r"the proprietary modules do not drive Hopper \(0x2342\)"),
        ((0x15F8, 0x2901), "auto", 580, r"no kernel module drives both Pascal \(0x15f8\) and Blackwell"),
        ((0x1DB4,), "auto", 590, r"branch 590 does not drive Volta \(0x1db4\)"),
        ((0x13F2,), "auto", 595, r"branch 595 does not drive Maxwell"),
        ((0x102D,), "auto", 535, r"branch 535 does not drive Kepler"),
        ((0x102D, 0x2330), "auto", 535, r"no branch drives both Kepler \(0x102d\) \(until 470\) and Hopper"),
        ((0x2901,), "auto", 560, r"branch 560 does not drive Blackwell \(0x2901\) yet"),
        ((0x3182,), "auto", 570, r"branch 570 does not drive Blackwell \(0x3182\) yet"),
        ((0x2330,), "auto", 515, r"branch 515 does not drive Hopper \(0x2330\) yet"),
        ((0x26B9,), "auto", 525, r"branch 525 does not drive Ada \(0x26b9\) yet"),
        ((0x2330,), "proprietary", 620, "branch 620 has no proprietary modules"),
        ((0x20B0,), "open", 510, "branch 510 has no open modules"),
    ],
)
def test_drivers_that_cannot_be(devices: tuple[int, ...], wanted: Any, branch: int, says: str) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        choose_flavour(wanted, branch, gpus(*devices))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("devices", "wanted", "branch", "modules", "reason"),
    [
        ((0x2330,), "auto", 580, "open", "open modules: Hopper (0x2330)"),
        ((0x1EB8, 0x20B0), "auto", 580, "open", "open modules: Turing (0x1eb8), Ampere (0x20b0)"),
        ((0x2901,), "auto", 580, "open", "open modules: the only ones that drive Blackwell (0x2901)"),
        ((0x2342,), "auto", 550, "open", "open modules: the only ones that drive Hopper (0x2342)"),
        (
            (0x1DB4, 0x20B0),
            "auto",
            580,
            "proprietary",
            "proprietary modules: the open ones do not drive Volta (0x1db4)",
        ),
        ((0x20B0,), "auto", 535, "proprietary", "the default of branch 535 (open from 560 on)"),
        ((0x15F8,), "proprietary", 580, "proprietary", "driver.flavour says so"),
        ((0x2330,), "proprietary", 580, "proprietary", "driver.flavour says so"),
        ((0x2330,), "open", 535, "open", "driver.flavour says so"),
        ((0xFFFF,), "auto", 580, "open", "open modules: GPUs of no known generation (0xffff)"),
        ((0x2330,), "auto", 620, "open", "open modules: Hopper (0x2330)"),
    ],
)
def test_kernel_modules_that_suit_the_gpus(
    devices: tuple[int, ...], wanted: Any, branch: int, modules: str, reason: str
) -> None:
    found = choose_flavour(wanted, branch, gpus(*devices))
    assert found.modules == modules
    assert reason in found.reason


@given(
    devices=st.lists(
        st.one_of(
            st.sampled_from(sorted(FIRST_BY_DEVICE)),
            st.sampled_from([first for first, _, _ in RANGES]),
            st.integers(0, 0xFFFF),
        ),
        min_size=1,
        max_size=8,
    ),
    branch=st.integers(450, 640),
    wanted=st.sampled_from(["auto", "open", "proprietary"]),
)
def test_what_is_chosen_drives_every_gpu(devices: list[int], branch: int, wanted: Any) -> None:
    """For any GPUs: modules that drive all of them, or a sentence with a hint; ``auto`` misses no way."""
    try:
        found = choose_flavour(wanted, branch, gpus(*devices))
    except Refusal as refusal:
        assert refusal.hint
        if wanted == "auto":
            with pytest.raises(Refusal):
                choose_flavour("open", branch, gpus(*devices))
            with pytest.raises(Refusal):
                choose_flavour("proprietary", branch, gpus(*devices))
        return
    assert wanted in ("auto", found.modules)
    for device in devices:
        last = last_branch(device)
        assert first_branch(device) <= branch <= (last or branch)
        if found.modules == "open":
            assert supports_open(device)
        else:
            assert not needs_open(device)
    assert branch >= 515 if found.modules == "open" else branch < 620


def test_the_order_of_gpus_does_not_matter() -> None:
    one, other = gpus(0x1DB4, 0x20B0, 0x20B0), gpus(0x20B0, 0x1DB4)
    assert choose_flavour("auto", 580, one) == choose_flavour("auto", 580, other)


def test_gpus_of_no_known_generation_are_told() -> None:
    assert unknown_gpus(gpus(0x2330)) == ""
    assert "0xffff" in unknown_gpus(gpus(0x2330, 0xFFFF))
    remarks = role(replace(H100, gpus=gpus(0xFFFF)))["packages:driver"].remarks
    assert len(remarks) == 1


def test_which_modules_drive_which_generation() -> None:
    first = {arch: device for device, _, arch in reversed(RANGES)}
    assert [a.name for a in Architecture if not supports_open(first[a])] == [
        "KEPLER",
        "MAXWELL",
        "PASCAL",
        "VOLTA",
    ]
    assert [a.name for a in Architecture if needs_open(first[a])] == ["BLACKWELL"]
    assert all(needs_open(device) for device in GRACE_HOPPER)


def test_gpus_that_came_later_than_their_generation_are_in_it() -> None:
    assert all(architecture_of(device) is not None for device in FIRST_BY_DEVICE)
    assert (first_branch(0x2331), first_branch(0x2330), first_branch(0x2335)) == (520, 525, 550)
    assert first_branch(0xFFFF) == first_branch(0x1EB8) == 0


# --- the table ------------------------------------------------------------------------------------


def test_every_row_says_where_its_names_come_from() -> None:
    for row in TABLE:
        assert row.document, row
        assert row.proof in row.userland.split(), row
        assert row.branches[0] <= row.branches[1], row
        assert row.open or row.proprietary, row


def test_no_two_rows_answer_for_one_host() -> None:
    for index, row in enumerate(TABLE):
        for other in TABLE[index + 1 :]:
            same = row.source == other.source and set(row.systems) & set(other.systems)
            apart = row.branches[1] < other.branches[0] or other.branches[1] < row.branches[0]
            assert apart or not same, (row, other)


@pytest.mark.parametrize(
    ("facts", "changes", "says"),
    [
        ({"os": "fedora", "version": "43"}, {}, "no driver packages known for fedora 43 from source cuda"),
        ({"version": "13"}, {}, "source cuda has no branch 580 for debian 13; it has 590 and later"),
        ({"version": "11"}, {}, "no driver packages known for debian 11"),
        (
            {},
            {"source": "archive", "repo": None},
            "source archive has no branch 580 for debian 12; it has 470, 535",
        ),
        (
            {"os": "ubuntu", "version": "24.04"},
            {"source": "archive", "repo": None, "branch": 565},
            "the packages of branch 565 in ubuntu 24.04's archive are transitional: they bring 580",
        ),
        (
            {"os": "ubuntu", "version": "24.04"},
            {"source": "archive", "repo": None, "branch": 525},
            "source archive has no branch 525 for ubuntu 24.04; it has 470, 535 and later",
        ),
        (
            {"os": "ubuntu", "version": "22.04", "gpus": gpus(0x20B0)},
            {"source": "archive", "repo": None, "branch": 470, "flavour": "proprietary", "prebuilt": False},
            "",
        ),
        (
            {"version": "13", "machine": "aarch64", "architecture": "arm64"},
            {"repo": None, "branch": 590},
            "NVIDIA's repository for debian 13 has no packages for aarch64",
        ),
        ({"gpus": ()}, {}, "no NVIDIA GPU on the PCI bus"),
        (
            {},
            {"source": "archive", "repo": None, "branch": 535, "flavour": "open"},
            "Debian 12's security updates have raised the libraries and not the open modules",
        ),
        (
            {"version": "13"},
            {"source": "archive", "repo": None, "branch": 535, "flavour": "open"},
            "source archive has no open modules of branch 535 for debian 13",
        ),
    ],
)
def test_hosts_without_packages(facts: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    if not says:
        assert role(replace(H100, **facts), **changes)
        return
    with pytest.raises(Refusal, match=says) as caught:
        role(replace(H100, **facts), **changes)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("facts", "uri", "says"),
    [
        ({}, "https://h.example/debian12/x86_64", ""),
        ({}, "https://h.example/debian12/x86_64/", ""),
        ({}, "https://x86_64.example/nvidia", ""),
        ({}, "https://h.example/debian12/sbsa/", r"for aarch64 \(sbsa in .*\), the host is x86_64"),
        ({"machine": "aarch64"}, "https://h.example/debian12/x86_64/", "for x86_64 .* the host is aarch64"),
        ({"machine": "aarch64"}, "https://h.example/ubuntu2404/sbsa", "for ubuntu2404 .* is debian 12"),
        ({}, "https://h.example/debian13/x86_64/", "the repository is for debian13 .* the host is debian 12"),
        ({"os": "ubuntu", "version": "24.04"}, "file:///srv/ubuntu2404/x86_64", ""),
        ({"os": "ubuntu", "version": "24.04"}, "file:///srv/ubuntu2204/x86_64", "for ubuntu2204"),
        ({"os": "rocky", "version": "9.4"}, "https://h.example/rhel9/x86_64/", ""),
        ({"os": "rocky", "version": "9.4"}, "https://h.example/rhel8/x86_64/", "for rhel8"),
    ],
)
def test_repositories_of_other_systems(facts: dict[str, Any], uri: str, says: str) -> None:
    host = replace(H100, **facts)
    if not says:
        refuse_foreign_repository(host, uri)
        return
    with pytest.raises(Refusal, match=says) as caught:
        refuse_foreign_repository(host, uri)
    assert caught.value.hint
    if "debian" in says:
        with pytest.raises(Refusal):
            role(host, repo={**REPO, "uri": uri})


@pytest.mark.parametrize(
    ("version", "kernel", "expected"),
    [
        ("24.04", "6.8.0-45-generic", "generic"),
        ("24.04", "6.11.0-26-generic", "generic-hwe-24.04"),
        ("22.04", "5.15.0-119-generic", "generic"),
        ("22.04", "6.8.0-45-generic", "generic-hwe-22.04"),
        ("24.04", "6.8.0-1021-nvidia-64k", "nvidia-64k"),
        ("24.04", "6.14.0-1003-nvidia", "nvidia-hwe-24.04"),
        ("22.04", "5.15.0-119-lowlatency", "lowlatency"),
        ("24.04", "6.8.0-1021-aws", "aws-lts-24.04"),
        ("24.04", "6.14.0-1007-aws", "aws"),
        ("22.04", "6.8.0-1015-azure", "azure"),
        ("22.04", "5.15.0-1071-gcp", "gcp-lts-22.04"),
        ("24.04", "6.12.3-custom", ""),
        ("24.04", "6.12.3", ""),
        ("24.04", "6.8.0-45-kvm", ""),
        ("20.04", "5.4.0-190-generic", ""),
    ],
)
def test_ubuntu_kernels_and_their_metapackages(version: str, kernel: str, expected: str) -> None:
    assert kernel_of_metapackage(replace(NOBLE, version=version, kernel=kernel)) == expected


def test_open_modules_of_debian_12_with_an_exact_version() -> None:
    found = archive(H100, branch=535, flavour="open", version="535.261.03-1")
    versions = {p.name: p.version for p in found["packages:driver"].packages}
    assert versions["nvidia-open-kernel-dkms"] == versions["libcuda1"] == "535.261.03-1"
    assert versions["nvidia-modprobe"] is None


def test_signed_modules_come_before_dkms_on_ubuntu() -> None:
    assert names(archive(NOBLE)) == [
        "nvidia-utils-580-server",
        "nvidia-compute-utils-580-server",
        "nvidia-headless-no-dkms-580-server-open",
        "linux-modules-nvidia-580-server-open-6.8.0-45-generic",
        "linux-modules-nvidia-580-server-open-generic",
    ]
    versions = {p.name: p.version for p in archive(NOBLE)["packages:driver"].packages}
    assert versions["linux-modules-nvidia-580-server-open-generic"] is None
    assert "packages:kernel-headers" not in archive(NOBLE)


@pytest.mark.parametrize(
    ("facts", "changes"), [(NOBLE, {"prebuilt": False}), (replace(NOBLE, kernel="6.12.3-custom"), {})]
)
def test_dkms_where_ubuntu_builds_nothing(facts: Facts, changes: dict[str, Any]) -> None:
    assert names(archive(facts, **changes)) == [
        "nvidia-utils-580-server",
        "nvidia-compute-utils-580-server",
        "nvidia-headless-580-server-open",
        "nvidia-dkms-580-server-open",
    ]


def test_packages_without_a_branch_in_their_name_are_pinned_before_they_are_installed() -> None:
    found = role(NOBLE, branch=595)
    assert names(found) == [
        "libnvidia-compute",
        "nvidia-persistenced",
        "nvidia-modprobe",
        "nvidia-dkms-open",
    ]
    order = list(found)
    assert [p.name for p in found["packages:driver-pinning"].packages] == ["nvidia-driver-pinning-595"]
    assert order.index("packages:driver-pinning") < order.index("packages:driver")
    assert "packages:driver-pinning" not in role(NOBLE, branch=580)


def test_the_pin_is_stronger_than_that_of_nvidia() -> None:
    pin = role(branch=590)["file:/etc/apt/preferences.d/provision-driver"].content.decode()
    assert "Pin: version 590.*\nPin-Priority: 1001\n" in pin


def test_what_was_installed_must_be_of_the_branch() -> None:
    """A transitional package has the version that was asked for; the library tells what it brought."""
    assert role()["packages:driver"].proof == "driver_is_branch 580"


# --- other drivers --------------------------------------------------------------------------------


FOREIGN_DRIVERS = {
    b"installer 575.57.08\n": (r"NVIDIA's \.run installer .* \(575\.57\.08\)", "nvidia-uninstall --silent"),
    b"installer \n": (r"NVIDIA's \.run installer has put a driver on the host,", "nvidia-uninstall --silent"),
    b"library /usr/local/lib/libnvidia-ml.so.570.1\n": (
        r"programs load /usr/local/lib/libnvidia-ml\.so\.570\.1, which belongs to no package and hides",
        "find /usr -name '*.so.570.1'",
    ),
    b"library /a/libnvidia-ml.so.5\nlibrary /b/libnvidia-ml.so.5\n": (
        "which belong to no package",
        "ldconfig",
    ),
}


@pytest.mark.parametrize("answer", FOREIGN_DRIVERS)
def test_a_driver_that_no_package_has_is_left_and_refused(answer: bytes) -> None:
    message, hint = FOREIGN_DRIVERS[answer]
    found = NoForeignDriver()
    state = found.states([found], Output(0, answer))[found.id]
    with pytest.raises(Refusal, match=message) as caught:
        found.change(state, Planned())
    assert hint in str(caught.value.hint)


def test_a_driver_of_packages_is_no_foreign_one() -> None:
    found = NoForeignDriver()
    assert found.change(found.states([found], Output(0))[found.id], Planned()) is None


def test_looking_for_a_foreign_driver_comes_first() -> None:
    assert next(iter(role())) == "foreign-driver"


# --- RHEL -----------------------------------------------------------------------------------------

ROCKY = replace(H100, os="rocky", version="9.5", codename="", architecture="", kernel="5.14.0-503.el9.x86_64")


@pytest.mark.parametrize(
    ("generation", "branch", "stream", "module"),
    [
        (0x2330, 580, "nvidia-driver:580-open", "kmod-nvidia-open-dkms"),
        (0x1DB4, 580, "nvidia-driver:580-dkms", "kmod-nvidia-latest-dkms"),
        (0x2901, 595, "nvidia-driver:595-open", "kmod-nvidia-open-dkms"),
    ],
)
@pytest.mark.parametrize("system", ["rhel 9.4", "rocky 9.5", "almalinux 9.5", "rocky 8.10", "rhel 8.10"])
def test_module_streams(system: str, generation: int, branch: int, stream: str, module: str) -> None:
    os, version = system.split()
    found = role(replace(ROCKY, os=os, version=version, gpus=gpus(generation)), branch=branch)
    packages = found["packages:driver"]
    assert isinstance(packages, RpmPackages)
    assert packages.stream == stream
    assert module in names(found)
    assert not [resource for resource in found if "apt" in resource]


@pytest.mark.parametrize(
    ("facts", "changes", "says"),
    [
        ({"os": "rhel", "version": "10.1"}, {}, "rhel 10 has no streams of the module nvidia-driver"),
        ({}, {"source": "archive", "repo": None}, "rocky 9 has no NVIDIA driver in its own repositories"),
        (
            {"gpus": gpus(0x20B0)},
            {"branch": 535},
            "source cuda has no branch 535 for rocky 9; it has 560 and",
        ),
    ],
)
def test_what_rhel_does_not_have(facts: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        role(replace(ROCKY, **facts), **changes)


def test_a_fabric_manager_on_rhel_has_the_drivers_version() -> None:
    hgx = replace(ROCKY, nvswitches=4)
    for branch, version, name, wanted in (
        (580, "580.159.04", "nvidia-fabricmanager", "580.159.04"),
        (570, None, "nvidia-fabric-manager", "570.*"),
    ):
        found = role(hgx, branch=branch, version=version)
        assert {p.name: p.version for p in found["packages:driver"].packages}[name] == wanted


# --- branches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "branch", "needs"),
    [
        ({}, 580, None),
        ({"nvidia-driver-cuda": "580.105.08-1"}, 580, None),
        ({"nvidia-driver-cuda": "570.211.01-1"}, 580, BRANCH_CHANGE),
        ({"nvidia-driver-cuda": "590.48.01-1"}, 580, BRANCH_CHANGE),
        ({"libcuda1": "535.261.03-1"}, 580, BRANCH_CHANGE),
        ({"nvidia-utils-570-server": "570.211.01-0ubuntu1"}, 580, BRANCH_CHANGE),
        ({"libnvidia-compute-580": "580.95.05-0ubuntu1"}, 580, None),
        ({"libnvidia-compute": "595.45.04-1ubuntu1"}, 580, BRANCH_CHANGE),
    ],
)
def test_another_branch_needs_permission(
    installed: dict[str, str], branch: int, needs: Permission | None
) -> None:
    """Whatever its packages are called: those of the archive, of NVIDIA's repository, of older branches."""
    packages = role(branch=branch, version=f"{branch}.159.04-1")["packages:driver"]
    assert isinstance(packages, Packages)
    state: dict[str, Any] = dict.fromkeys((p.name for p in packages.packages), ABSENT)
    state |= {name: PackageState(version, "installed", held=True) for name, version in installed.items()}
    change = packages.change(state, Planned())
    assert change is not None
    assert change.needs == needs
    assert "open modules: Hopper (0x2330)" in change.reason


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.systems[0]} {row.source} {row.branches[0]}")
def test_every_driver_of_the_table_would_be_found(row: Row) -> None:
    """The package by which a row tells its version is among those that tell the installed branch."""
    family = FAMILY["rhel" if "rhel 9" in row.systems else "debian"]
    assert any(fnmatchcase(row.proof.format(branch=570), glob) for glob in family)
    others = ("nvidia-driver-assistant", "nvidia-driver-pinning-570", "nvidia-container-toolkit", "nvidia-fs")
    assert not [name for name in others for glob in family if fnmatchcase(name, glob)]


# --- Fabric Manager -------------------------------------------------------------------------------

HGX = replace(H100, nvswitches=4, gpus=gpus(*[0x2330] * 8))


@pytest.mark.parametrize(
    ("facts", "changes", "package", "version"),
    [
        (HGX, {}, "nvidia-fabricmanager", "580.*"),
        (HGX, {"version": "580.159.04-1"}, "nvidia-fabricmanager", "580.159.04-*"),
        (HGX, {"branch": 570}, "nvidia-fabricmanager-570", "570.*"),
        (replace(HGX, gpus=gpus(0x2901), nvswitches=0, nvlink5=True), {}, "nvidia-fabricmanager", "580.*"),
    ],
)
def test_the_fabric_manager_where_there_are_switches(
    facts: Facts, changes: dict[str, Any], package: str, version: str
) -> None:
    found = role(facts, **changes)
    versions = {p.name: p.version for p in found["packages:driver"].packages}
    assert versions[package] == version
    assert ("nvlsm" in versions) is facts.nvlink5
    assert found["fabric-manager"].package == package
    assert "service:nvidia-fabricmanager.service" in found
    order = list(found)
    assert order.index("packages:driver") < order.index("fabric-manager") < order.index("module:nvidia")


@pytest.mark.parametrize(("facts", "changes"), [(H100, {}), (HGX, {"fabric_manager": "off"})])
def test_no_fabric_manager_elsewhere(facts: Facts, changes: dict[str, Any]) -> None:
    found = role(facts, **changes)
    assert not [name for name in names(found) if "fabric" in name]
    assert found["fabric-manager"].package == ""
    assert "service:nvidia-fabricmanager.service" not in found


@pytest.mark.parametrize(
    ("facts", "changes", "says"),
    [
        (
            HGX,
            {"branch": 535},
            "joined by NVSwitches, and source archive has no Fabric Manager for debian 12",
        ),
        (
            replace(NOBLE, gpus=gpus(0x2901), nvlink5=True),
            {},
            "joined by NVSwitches, and source archive has no nvlsm for ubuntu 24.04",
        ),
    ],
)
def test_switches_that_the_source_has_nothing_for(facts: Facts, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        archive(facts, **changes)
    assert archive(facts, fabric_manager="off", **changes)
