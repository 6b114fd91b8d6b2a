"""Archives as the driver role meets them: stand-ins with their names and relations, and the real apt.

Ubuntu's names change with the branch, its modules come ready for one kernel each, and some of its packages
are transitional: they bring another branch. NVIDIA's Fabric Manager belongs to one version of the driver and
does not say so to apt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import prerequisites
from lab.aptrepo import SigningKey, flat_repository, signing_key
from lab.execute import execute
from provision.facts import Gpu
from provision.plan.plan import Plan
from provision.resource import AnyResource
from provision.resources.file import File
from provision.resources.packages.deb import Packages
from provision.resources.packages.repository import Repo, package_source
from provision.roles.driver.fabric_manager import FabricManager
from provision.roles.driver.role import BRANCH_CHANGE, DriverSettings, resources
from tests.lab.throwaway import SHARED, Root, failure
from tests.unit.examples import repo
from tests.unit.recordings import facts_of

pytestmark = [pytest.mark.lab, pytest.mark.slow]

HOST = replace(facts_of("ubuntu-24.04"), gpus=(Gpu("0000:18:00.0", 0x2330),) * 8, nvswitches=4, nvlink5=False)
NVIDIA = replace(HOST, os="debian", version="12", codename="bookworm", kernel="6.1.0-32-amd64")
RELEASES = {570: "570.211.01", 580: "580.173.02"}
SUFFIX = "-0ubuntu0.24.04.1"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def deb(folder: Path, name: str, version: str, *fields: str, library: str = "") -> None:
    """Build a package.

    :param library: NVIDIA's version of the library that it has.
    """
    tree = folder / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    about = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", *fields]
    about += ["Maintainer: nobody <nobody@example.org>", "Description: stand-in"]
    (tree / "DEBIAN/control").write_text("".join(f"{line}\n" for line in about), "utf-8")
    if name.startswith("nvidia-fabricmanager"):
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin/nv-fabricmanager").touch()
    if library:
        (tree / LIBRARIES).mkdir(parents=True)
        file = tree / LIBRARIES / f"libnvidia-ml.so.{library}"
        soname = "-Wl,-soname,libnvidia-ml.so.1"
        execute("gcc", "-shared", "-nostdlib", soname, "-x", "c", "/dev/null", "-o", str(file))
        script = tree / "DEBIAN/postinst"
        script.write_text("#!/bin/sh\nldconfig\n", "utf-8")
        script.chmod(0o755)
    execute("dpkg-deb", "--build", "--root-owner-group", str(tree), str(folder))


def server(folder: Path, branch: int) -> None:
    """The packages of one branch, related as Ubuntu's are."""
    release, kernel = RELEASES[branch], HOST.kernel
    version, modules = f"{release}{SUFFIX}", "6.8.0-48.48"
    common = f"nvidia-kernel-common-{branch}-server"
    one = (f"Provides: nv-{{0}}, {common}-{release}", "Conflicts: nv-{0}")
    deb(
        folder,
        f"libnvidia-compute-{branch}-server",
        version,
        *(f.format("lib") for f in one),
        library=release,
    )
    deb(folder, common, version, *(f.format("common") for f in one))
    depends = f"Depends: libnvidia-compute-{branch}-server (= {version})"
    deb(folder, f"nvidia-utils-{branch}-server", version, depends, "Provides: nv-smi", "Conflicts: nv-smi")
    deb(folder, f"nvidia-compute-utils-{branch}-server", version, depends)
    deb(
        folder, f"nvidia-headless-no-dkms-{branch}-server-open", version, f"{depends}, {common} (= {version})"
    )
    ready = f"linux-modules-nvidia-{branch}-server-open"
    deb(folder, f"{ready}-{kernel}", modules, f"Depends: {common} (>= {release})")
    deb(folder, f"{ready}-generic", modules, f"Depends: {ready}-{kernel} (= {modules})")
    deb(folder, f"nvidia-fabricmanager-{branch}", version, f"Depends: {common}-{release}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[SigningKey, Path]:
    """Two branches, and a third whose packages are transitional."""
    if (reason := prerequisites.unfit()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("debs")
    for branch in RELEASES:
        server(folder, branch)
    names = ("nvidia-utils", "nvidia-compute-utils", "nvidia-headless-no-dkms", "linux-modules-nvidia")
    tails = ("", "", "-open", f"-open-{HOST.kernel}")
    for name, tail in [*zip(names, tails, strict=True), ("linux-modules-nvidia", "-open-generic")]:
        deb(folder, f"{name}-575-server{tail}", f"575.57.08{SUFFIX}", f"Depends: {name}-580-server{tail}")
    for version in ("580.95.05-1", "580.159.04-1"):
        deb(folder, "nvidia-driver-cuda", version, library=version.removesuffix("-1"))
        deb(folder, "nvidia-kernel-open-dkms", version)
        deb(folder, "nvidia-fabricmanager", version)
    key = signing_key(tmp_path_factory.mktemp("keys"), "ubuntu")
    return key, flat_repository(tmp_path_factory.mktemp("cache"), "ubuntu", folder.glob("*.deb"), key)


@pytest.fixture
def root(repository: tuple[SigningKey, Path], tmp_path: Path) -> Iterator[Root]:
    """A root whose only source is the repository."""
    key, folder = repository
    root = Root.make(tmp_path / "root")
    execute("cp", "--recursive", f"{folder}/.", str(root.shared / "apt"))
    execute("chmod", "--recursive", "a+rX", str(root.shared))
    root.must("rm -rf /etc/apt/sources.list /etc/apt/*.d/* /etc/apt/preferences /var/lib/apt/lists/*")
    source = Repo(uri=f"file://{SHARED}/apt", key=key.armoured, fingerprint=key.fingerprint)
    root.converge(*package_source(source, HOST))
    yield root


def role(branch: int, **changes: Any) -> list[AnyResource]:
    """What the role does with apt on the host; the rest needs a kernel."""
    return of_apt(resources(DriverSettings(source="archive", branch=branch, **changes), HOST))


def of_apt(found: list[AnyResource]) -> list[AnyResource]:
    return [
        resource
        for resource in found
        if isinstance(resource, Packages | FabricManager)
        or (isinstance(resource, File) and resource.path.startswith("/etc/apt/"))
    ]


def the_packages(plan: Plan) -> Any:
    return next(change for change in plan.changes if change.resource == "packages:driver")


def driver(root: Root) -> dict[str, str]:
    """Version and selection of what is installed of NVIDIA."""
    form = r"${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n"
    listed = root.must(f"dpkg-query -W -f '{form}' '*nvidia*' | sed -n 's/ installed$//p'")
    return dict(line.split(" ", 1) for line in listed.splitlines())


def test_another_branch_has_other_names_and_the_old_ones_go(root: Root) -> None:
    root.converge(*role(570))
    up = root.converge(*role(580))
    change = the_packages(up)
    assert (change.needs, change.reason.split(";")[0]) == (BRANCH_CHANGE, "branch 570 → 580")
    said = change.simulation.splitlines()
    for gone in ("nvidia-utils-570-server", "libnvidia-compute-570-server", "nvidia-fabricmanager-570"):
        assert f"remove {gone} {RELEASES[570]}{SUFFIX}" in said
    there = driver(root)
    assert not [name for name, version in there.items() if version.startswith("570.")]
    held = {name for name, rest in there.items() if rest.endswith(" hold")}
    assert held == {
        "linux-modules-nvidia-580-server-open-6.8.0-48-generic",
        "linux-modules-nvidia-580-server-open-generic",
        "nvidia-compute-utils-580-server",
        "nvidia-fabricmanager-580",
        "nvidia-headless-no-dkms-580-server-open",
        "nvidia-utils-580-server",
    }
    down = root.converge(*role(570))
    assert the_packages(down).reason.startswith("branch 580 → 570")


def test_a_transitional_package_that_the_table_does_not_know_fails_the_step(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provision.roles.driver.packages.choose.SWAPPED", {})
    plan = root.plan(*role(575, fabric_manager="off"))
    events = root.apply(plan)
    assert "branch 575 was asked for, and the driver 580.173.02 is installed" in failure(events)


def test_the_fabric_manager_follows_the_driver_that_is_there(root: Root) -> None:
    """Any version of the branch will do for the driver, so it stays; its Fabric Manager has one that will."""
    old = "nvidia-driver-cuda=580.95.05-1 nvidia-kernel-open-dkms=580.95.05-1"
    root.must(f"apt-get -q update; apt-get -q -y install {old}")
    settings = DriverSettings(branch=580, repo=repo())
    wanted = [r for r in of_apt(resources(settings, NVIDIA)) if isinstance(r, Packages | FabricManager)]
    wanted = [r for r in wanted if r.id != "packages:kernel-headers"]
    root.converge(*wanted)
    assert driver(root) == {
        "nvidia-driver-cuda": "580.95.05-1 hold",
        "nvidia-fabricmanager": "580.95.05-1 hold",
        "nvidia-kernel-open-dkms": "580.95.05-1 hold",
    }
