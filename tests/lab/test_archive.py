"""The driver from Debian's own archive, with its real packages."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import aptrepo
from lab.archive import COMPONENTS, Archive, with_packages
from lab.host import LabHost
from lab.lab import Lab
from lab.rootfs import build_rootfs
from provision.facts import Gpu
from provision.resource import AnyResource
from provision.resources.file import File
from provision.resources.packages.deb import Packages
from provision.roles.driver.packages.table import TABLE
from provision.roles.driver.role import PREFERENCES, DriverSettings, resources
from tests.lab.cli import Answer, inv, lab_inventory, write_inventory
from tests.lab.test_faults import failed
from tests.lab.test_provision import shell
from tests.unit.recordings import facts_of

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.campaign("archive", only=True)]

SUITES = {"debian 12": "bookworm", "debian 13": "trixie"}
ROWS = [
    pytest.param(system, row.branches[0], flavour, bool(exact), id=f"{system} {row.branches[0]} {flavour}")
    for row in TABLE
    if row.source == "archive"
    for system in row.systems
    if system in SUITES
    for flavour, modules, exact in zip(
        ("open", "proprietary"), (row.open, row.proprietary), row.exact, strict=True
    )
    if modules
]

OF_A_DRIVER = re.compile(r"nvidia|cuda")
OF_A_DESKTOP = re.compile(r"xserver-|libx11|libgtk|libgl1|libwayland|.*-desktop|xorg")

Opened = Callable[[str], Archive]


@pytest.fixture(scope="module")
def opened(fit_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Debian's archive by suite, where the machine's mirror has all of it."""
    archives: dict[str, Archive] = {}
    lacks: dict[str, set[str]] = {}

    def opened(suite: str) -> Archive:
        if suite not in archives:
            archives[suite] = Archive.open(suite, tmp_path_factory.mktemp(suite))
            lacks[suite] = set(COMPONENTS) - archives[suite].components()
        if lacks[suite]:
            pytest.skip(f"the mirror of this machine has no {', '.join(sorted(lacks[suite]))} of {suite}")
        return archives[suite]

    return opened


def role(system: str, branch: int, flavour: str, version: str | None = None) -> list[AnyResource]:
    """What the role asks of a host with GPUs that either flavour drives."""
    settings = DriverSettings.model_validate(
        {"source": "archive", "branch": branch, "flavour": flavour, "version": version}
    )
    facts = facts_of(system.replace(" ", "-"))
    return resources(settings, dataclasses.replace(facts, gpus=(Gpu("0000:10:00.0", 0x20B0),)))


def told(wanted: list[AnyResource]) -> tuple[list[str], str]:
    """The packages of a role as apt is told to install them, and the pin."""
    (pin,) = (r.content.decode() for r in wanted if isinstance(r, File) and r.path == PREFERENCES)
    return [r.selector(p) for r in wanted if isinstance(r, Packages) for p in r.packages], pin


@pytest.mark.parametrize(("system", "branch", "flavour", "needs_version"), ROWS)
def test_apt_resolves_the_packages_of_the_table(
    opened: Opened, system: str, branch: int, flavour: str, needs_version: bool
) -> None:
    archive = opened(SUITES[system])
    # What the role tells an operator to set.
    version = archive.versions("nvidia-open-kernel-dkms")[0] if needs_version else None
    wanted = role(system, branch, flavour, version)
    selectors, pin = told(wanted)
    come = archive.resolve(*selectors, preferences=pin)
    asked = [p for r in wanted if isinstance(r, Packages) for p in r.packages]
    assert {p.name for p in asked} <= come.keys()
    assert all(p.accepts(come[p.name]) for p in asked)
    # Whatever else of a driver comes is of this branch; what has a version of its own is asked for by name.
    beside = {p.name for p in asked if p.version is None}
    others = {
        name: version
        for name, version in come.items()
        if OF_A_DRIVER.search(name) and name not in beside and re.match(rf"(?!{branch}\.)\d{{3}}\.", version)
    }
    assert not others
    assert not [name for name in come if OF_A_DESKTOP.match(name)]


# ---- on hosts

BRANCHES = {"bookworm": 535, "trixie": 550}
"""The newest branch of each suite, which the hosts get."""

NAMES = "gpu-01,gpu-02"


@pytest.fixture(scope="module")
def real(opened: Opened) -> Iterator[Lab]:
    """A lab with a host of each suite, whose mirror has Debian's own driver."""
    for suite in BRANCHES:
        opened(suite)
    lab = Lab("real")
    lab.down()
    try:
        lab.up(len(BRANCHES), suites=tuple(BRANCHES))
        with lab.serving("debian", mirror(lab)):
            yield lab
    finally:
        lab.down()


def mirror(lab: Lab) -> Path:
    """The lab's mirror of Debian with the packages of the role, in their components."""
    cache = lab.layout.cache
    systems = [
        with_packages(
            build_rootfs(suite, cache, print), cache, *told(role(system, BRANCHES[suite], "proprietary"))
        )
        for system, suite in SUITES.items()
    ]
    return aptrepo.debian_mirror(cache, systems, aptrepo.signing_key(cache, "debian"), "real")


def inventory(lab: Lab, folder: Path, *, headers: bool) -> Path:
    """An inventory that takes the driver from Debian's archive.

    :param headers: ``driver.headers`` of Debian 13, whose dkms builds for every kernel that has some.
    """
    document = lab_inventory(lab.layout.name)
    for machine in lab.hosts:
        document["_meta"]["hostvars"][machine.name]["driver"] = {
            "source": "archive",
            "branch": BRANCHES[machine.suite],
            "repo": None,
            "version": None,
            "headers": headers or machine.suite == "bookworm",
        }
    return write_inventory(folder, document)


@pytest.fixture(scope="module")
def source(real: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory with which nothing is built, as the kernel that runs is not Debian's."""
    return inventory(real, tmp_path_factory.mktemp("archive"), headers=False)


@pytest.fixture(scope="module")
def without_components(real: Lab, source: Path) -> Answer:
    """The first run, where apt knows main only."""
    return provision(source)


@pytest.fixture(scope="module")
def with_components(real: Lab, source: Path, without_components: Answer) -> Answer:
    """The second run, after somebody has done as the hint says."""
    for machine in real.hosts:
        enable(machine)
    return provision(source)


def provision(source: Path) -> Answer:
    return inv(
        "provision", "--hosts", NAMES, "--roles", "driver", "--yes", "--json", inventory=source, timeout=3600
    )


def enable(machine: LabHost) -> None:
    shell(
        machine,
        "sed -i 's/^Components: main$/& contrib non-free non-free-firmware/' /etc/apt/sources.list.d/*",
    )


def versions(machine: LabHost) -> dict[str, str]:
    """What dpkg has installed: versions by name."""
    rows = shell(
        machine, r"dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' | sed -n 's/^installed //p'"
    )
    return dict(row.split(" ") for row in rows.splitlines())


def test_components_that_are_missing_are_named(real: Lab, without_components: Answer) -> None:
    for machine in real.hosts:
        said, hint = failed(without_components, machine.name)
        assert "Unable to locate package libcuda1" in said
        assert "contrib, non-free and non-free-firmware" in hint


def test_the_real_packages_are_installed_and_stay(real: Lab, with_components: Answer) -> None:
    for machine in real.hosts:
        branch = BRANCHES[machine.suite]
        found = versions(machine)
        driver = {
            name: found[name] for name in ("libcuda1", "nvidia-kernel-dkms", "nvidia-smi", "libnvidia-ml1")
        }
        assert len(set(driver.values())) == 1, driver
        assert driver["libcuda1"].startswith(f"{branch}.")
        assert not [name for name in found if OF_A_DESKTOP.match(name)]
        held = shell(machine, "apt-mark showhold").split()
        assert {*driver, "firmware-nvidia-gsp", "nvidia-persistenced"} - {"libnvidia-ml1"} <= set(held)
        policy = shell(machine, "apt-cache policy libcuda1 libnvidia-ml1")
        assert policy.count(" 1001\n") >= 2, policy
        assert '"nvidia-"' in shell(machine, "apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_a_kernel_without_headers_is_the_honest_end(real: Lab, with_components: Answer) -> None:
    kernel = os.uname().release
    for machine in real.hosts:
        said, hint = failed(with_components, machine.name)
        assert f"the headers of kernel {kernel} are missing" in said
        assert "headers" in hint
        assert shell(machine, "dkms status").startswith("nvidia-current/")
        assert shell(machine, "nvidia-smi 2>&1 || :").startswith(
            "NVIDIA-SMI has failed because it couldn't comm"
        )


FAKE_KERNEL = r"""set -e
headers=linux-headers-$(dpkg --print-architecture)
kernel=$(apt-cache depends "$headers" | sed -n 's/.*Depends: linux-headers-//p')
echo "$kernel" | tee /etc/running-kernel
mkdir -p "/lib/modules/$kernel"
rm -f /boot/vmlinuz-*
echo "the kernel that this host says it runs" >"/boot/vmlinuz-$kernel"
mount --bind /etc/running-kernel /proc/sys/kernel/osrelease
mv /usr/bin/uname /usr/bin/uname.real
echo '#!/bin/sh' >/usr/bin/uname
echo 'case $* in -r) cat /etc/running-kernel ;; *) exec uname.real "$@" ;; esac' >>/usr/bin/uname
chmod 755 /usr/bin/uname
"""
"""Makes a host say that it runs Debian's kernel. Only modprobe knows better, as it asks the kernel itself."""


@pytest.mark.skipif(
    "LAB_BUILDS" not in os.environ, reason="builds modules for ten minutes; LAB_BUILDS=1 does"
)
def test_the_real_modules_are_built_and_found(real: Lab, tmp_path: Path) -> None:
    source = inventory(real, tmp_path, headers=True)
    kernels = {}
    for machine in real.hosts:
        machine.reset()
        enable(machine)
        shell(machine, "apt-get -q update")
        kernels[machine.name] = shell(machine, FAKE_KERNEL).strip()
    answer = provision(source)
    for machine in real.hosts:
        said, hint = failed(answer, machine.name)
        assert "Module nvidia-current not found in directory" in said
        assert "dkms status" in hint
        kernel, branch = kernels[machine.name], BRANCHES[machine.suite]
        status = shell(machine, "dkms status")
        assert re.match(rf"nvidia-current/{branch}\.\S+, {re.escape(kernel)}, \w+: installed$", status)
        file = f"/lib/modules/{kernel}/updates/dkms/nvidia-current.ko*"
        assert shell(machine, f"modinfo -F version {file}").startswith(f"{branch}.")
    # What is missing is that the module is loaded: nothing of packages, headers and builds is planned again.
    for name, found in (
        inv("plan", "--hosts", NAMES, "--roles", "driver", "--json", inventory=source)
        .document["hosts"]
        .items()
    ):
        planned = {change["resource"] for change in found["changes"]}
        assert {"module:nvidia", "module:nvidia-uvm"} <= planned, name
        assert not {r for r in planned if r.startswith(("packages:", "kernel-headers", "driver-modules"))}, (
            name
        )
