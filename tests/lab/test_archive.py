"""The driver from Debian's own archive, with its real packages."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from provision.driver_packages import TABLE
from provision.facts import Gpu
from provision.resources.base import Resource
from provision.resources.file import File
from provision.resources.package import Packages
from provision.roles.driver import PREFERENCES, DriverSettings, resources
from tests.lab.archive import COMPONENTS, Archive
from tests.unit.recordings import facts_of

pytestmark = [pytest.mark.lab, pytest.mark.slow]

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


def role(system: str, branch: int, flavour: str, version: str | None = None) -> list[Resource]:
    """What the role asks of a host with GPUs that either flavour drives."""
    settings = DriverSettings.model_validate(
        {"source": "archive", "branch": branch, "flavour": flavour, "version": version}
    )
    facts = facts_of(system.replace(" ", "-"))
    return resources(settings, dataclasses.replace(facts, gpus=(Gpu("0000:10:00.0", 0x20B0),)))


def resolved(archive: Archive, wanted: list[Resource]) -> dict[str, str]:
    """What apt would install for a role, under its pin."""
    (pin,) = (r.content.decode() for r in wanted if isinstance(r, File) and r.path == PREFERENCES)
    selectors = [p.selector for r in wanted if isinstance(r, Packages) for p in r.packages]
    return archive.resolve(*selectors, preferences=pin)


@pytest.mark.parametrize(("system", "branch", "flavour", "needs_version"), ROWS)
def test_apt_resolves_the_packages_of_the_table(
    opened: Opened, system: str, branch: int, flavour: str, needs_version: bool
) -> None:
    archive = opened(SUITES[system])
    # What the role tells an operator to set.
    version = archive.versions("nvidia-open-kernel-dkms")[0] if needs_version else None
    wanted = role(system, branch, flavour, version)
    come = resolved(archive, wanted)
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
