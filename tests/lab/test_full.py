"""Hosts without space: what is said is true, nothing is half written, and with space a run converges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.conftest import cases
from tests.lab.cli import Answer, inv
from tests.lab.test_faults import repair
from tests.lab.test_provision import host, provision, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

NAME = "gpu-03"
FILES = (
    "/etc/modprobe.d/provision-nouveau.conf",
    "/usr/local/lib/provision/triton-mounts",
    "/etc/apt/preferences.d/provision-driver",
)
"""What a run has to write; it is kept beside for comparing."""

HEADERS = "DEBIAN_FRONTEND=noninteractive apt-get -q -y purge 'linux-headers-*'"

NO_SPACE = re.compile(r"no space|no room", re.IGNORECASE)
UNTRUE = re.compile(r"no NVIDIA GPU|shows no GPU|not a Linux|Traceback|makes no sense|unreachable=[1-9]")

LEVELS = {f"{kilobytes} KB": kilobytes for kilobytes in range(200, -1, -4)}
PLACES = {
    "/etc": ("/etc",),
    "/var": ("/var/lib/provision", "/var/backups", "/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg"),
    "/tmp": ("/tmp", "/var/tmp"),
}
FULL = {f"{place} {kilobytes} KB": (place, kilobytes) for place in PLACES for kilobytes in (0, 4, 16, 64)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take all levels in the campaign, and else two in /run."""
    if "level" in metafunc.fixturenames:
        metafunc.parametrize("level", cases(metafunc.config, "full", LEVELS, 2))
    if "place" in metafunc.fixturenames:
        metafunc.parametrize("place", FULL)


@pytest.fixture(scope="module")
def provisioned(lab: Lab) -> Iterator[LabHost]:
    """A host that is right, with copies of the files; and right again at the end, with one run."""
    machine = host(lab, NAME)
    assert provision(pattern=NAME).code == 0
    shell(machine, f"mkdir -p /root/kept && cp --parents {' '.join(FILES)} /root/kept")
    yield machine
    repair(NAME)


@pytest.fixture
def drifted(provisioned: LabHost) -> LabHost:
    """A host that has to get the files."""
    shell(provisioned, f"rm -f {' '.join(FILES)}")
    return provisioned


def fill(machine: LabHost, folder: str, kilobytes: int) -> None:
    """Leave so many kilobytes of a folder's file system."""
    free = f"$(($(df --output=avail -k {folder} | tail -n 1) - {kilobytes}))"
    shell(machine, f"fallocate -l {free}K {folder}/filler")


@contextmanager
def small(machine: LabHost, places: tuple[str, ...], kilobytes: int) -> Iterator[None]:
    """Put folders on a small file system of their own, with so much space left; then back where they were."""
    shell(machine, "mkdir -p /small && mount -t tmpfs -o mode=755,size=2g tmpfs /small")
    for place in places:
        copy = f"mkdir -p /small{place} && cp -a {place}/. /small{place}"
        shell(
            machine,
            f"{copy} && chmod --reference={place} /small{place} && mount --bind /small{place} {place}",
        )
    try:
        fill(machine, "/small", kilobytes)
        yield
    finally:
        shell(machine, "rm -f /small/filler")
        for place in places:
            shell(machine, f"umount -l {place} && cp -a /small{place}/. {place}")
        shell(machine, "umount -l /small")


def true(answer: Answer, *codes: int) -> None:
    """It worked, or there is no space and that is said, with a hint; and nothing untrue."""
    said = answer.out + answer.err
    assert not UNTRUE.search(said), str(answer)
    if answer.code not in codes:
        assert NO_SPACE.search(said), str(answer)
        assert "hint: " in said, str(answer)


def without_space(machine: LabHost, *, verified: bool) -> str:
    """What every command says on a host that has drifted and has no space; what a run came to."""
    true(inv("plan", "--hosts", NAME), 3)
    run = inv("provision", "--hosts", NAME, "--yes")
    true(run, 0)
    for file in FILES:
        kept = machine.run(["cmp", file, f"/root/kept{file}"])
        assert kept.returncode == 0 or "No such file" in kept.stderr, kept.stdout + kept.stderr
    if verified:
        true(inv("verify", "--hosts", NAME), 0, 3)
    return f"exit {run.code}"


@pytest.mark.campaign("full")
def test_a_host_without_space_in_run_says_so(
    drifted: LabHost, level: str, request: pytest.FixtureRequest
) -> None:
    fill(drifted, "/run", LEVELS[level])
    try:
        told = without_space(drifted, verified=LEVELS[level] % 100 == 0)
    finally:
        shell(drifted, "rm /run/filler")
    request.node.user_properties.append(("full", told))


@pytest.mark.campaign("full", only=True)
def test_a_host_without_space_elsewhere_says_so(
    drifted: LabHost, place: str, request: pytest.FixtureRequest
) -> None:
    folder, kilobytes = FULL[place]
    shell(drifted, HEADERS)
    with small(drifted, PLACES[folder], kilobytes):
        told = without_space(drifted, verified=True)
    repair(NAME)
    request.node.user_properties.append(("full", told))
