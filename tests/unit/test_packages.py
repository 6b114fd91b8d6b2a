"""Packages: what dpkg-query says, and what is planned for it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from provision.command import Output
from provision.resources.base import ABSENT, Missing, Planned
from provision.resources.package import Package, Packages, PackageState

ANSWER = b"""\
docker.io\t20.10.24+dfsg1-1+deb12u1\tinstalled\tinstall
libnvidia-container1\t1.20.0-1\tinstalled\thold
nvidia-container-toolkit\t1.17.8-1\tconfig-files\tdeinstall
nvidia-driver-cuda\t580.159.04-1\thalf-configured\thold
tini\t\tnot-installed\tunknown
"""
"""What dpkg-query 1.21 prints for these; a name that it never heard of is an error and exit code 1."""

ONE = Package("nvidia-driver-cuda", "580.159.04-1")
DRIVER = Packages("driver", (ONE, Package("nvidia-kernel-open-dkms", "580.*")))
State = PackageState | Missing


def installed(version: str, *, held: bool = True, status: str = "installed") -> PackageState:
    return PackageState(version, status, held)


def test_the_answer_of_dpkg_query() -> None:
    names = [
        "docker.io",
        "libnvidia-container1",
        "nvidia-container-toolkit",
        "nvidia-driver-cuda",
        "tini",
        "curl",
    ]
    sets = [Packages("a", tuple(map(Package, names[:3]))), Packages("b", tuple(map(Package, names[3:])))]
    found = Packages.states(sets, Output(1, ANSWER, b"dpkg-query: no packages found matching curl\n"))
    assert found == {
        "packages:a": {
            "docker.io": PackageState("20.10.24+dfsg1-1+deb12u1", "installed", held=False),
            "libnvidia-container1": PackageState("1.20.0-1", "installed", held=True),
            "nvidia-container-toolkit": ABSENT,
        },
        "packages:b": {
            "nvidia-driver-cuda": PackageState("580.159.04-1", "half-configured", held=True),
            "tini": ABSENT,
            "curl": ABSENT,
        },
    }


@pytest.mark.skipif(
    shutil.which("dpkg-query") is None, reason="dpkg-query is not installed (not Debian's kind)"
)
def test_the_probe_asks_a_real_dpkg() -> None:
    sets = [Packages("base", (Package("dpkg"), Package("no-such-package")))]
    ran = subprocess.run(["sh", "-c", Packages.probe(sets).script], capture_output=True, check=False)
    found = Packages.states(sets, Output(ran.returncode, ran.stdout, ran.stderr))["packages:base"]
    assert found["no-such-package"] is ABSENT
    dpkg = found["dpkg"]
    assert isinstance(dpkg, PackageState)
    assert dpkg.status == "installed"


@pytest.mark.parametrize("exit_code", [2, 127])
def test_a_dpkg_that_fails_is_no_answer(exit_code: int) -> None:
    with pytest.raises(ValueError, match=f"exit {exit_code}: database is locked"):
        Packages.states([DRIVER], Output(exit_code, b"", b"database is locked\n"))


RIGHT = installed("580.159.04-1")


@pytest.mark.parametrize(
    ("first", "second", "action", "reason"),
    [
        (
            ABSENT,
            ABSENT,
            "install",
            "nvidia-driver-cuda: install, it is not installed; "
            "nvidia-kernel-open-dkms: install, it is not installed",
        ),
        (RIGHT, ABSENT, "install", "nvidia-kernel-open-dkms: install, it is not installed"),
        (installed("580.95.05-1"), RIGHT, "upgrade", "nvidia-driver-cuda: upgrade from 580.95.05-1"),
        (installed("590.10-1"), RIGHT, "downgrade", "nvidia-driver-cuda: downgrade from 590.10-1"),
        (RIGHT, installed("575.57.08-1"), "upgrade", "nvidia-kernel-open-dkms: upgrade from 575.57.08-1"),
        (RIGHT, installed("590.10-1"), "downgrade", "nvidia-kernel-open-dkms: downgrade from 590.10-1"),
        (
            installed("580.159.04-1", status="half-configured"),
            RIGHT,
            "repair",
            "nvidia-driver-cuda: repair, dpkg left it half-configured",
        ),
        (
            ABSENT,
            installed("590.10-1"),
            "downgrade",
            "nvidia-driver-cuda: install, it is not installed; "
            "nvidia-kernel-open-dkms: downgrade from 590.10-1",
        ),
        (installed("580.159.04-1", held=False), RIGHT, "hold", "not held"),
    ],
)
def test_a_set_that_is_not_right(first: State, second: State, action: str, reason: str) -> None:
    found = {"nvidia-driver-cuda": first, "nvidia-kernel-open-dkms": second}
    change = DRIVER.change(found, Planned())
    assert change is not None
    assert (change.resource, change.action, change.reason) == ("packages:driver", action, reason)
    assert change.summary.startswith(f"{action} nvidia-")
    assert change.done == (
        "package_is nvidia-driver-cuda 580.159.04-1 && package_is nvidia-kernel-open-dkms '580.*'"
        " && package_held nvidia-driver-cuda && package_held nvidia-kernel-open-dkms"
    )
    assert ("--allow-downgrades" in change.script) == (action == "downgrade")
    assert ("apt_install" in change.script) == (action != "hold")
    assert "apt-mark hold nvidia-driver-cuda nvidia-kernel-open-dkms" in change.script


def test_a_set_that_is_right_needs_nothing() -> None:
    assert DRIVER.change({"nvidia-driver-cuda": RIGHT, "nvidia-kernel-open-dkms": RIGHT}, Planned()) is None


def test_only_packages_that_move_are_named_to_apt() -> None:
    change = DRIVER.change({"nvidia-driver-cuda": ABSENT, "nvidia-kernel-open-dkms": RIGHT}, Planned())
    assert change is not None
    assert change.script.startswith("apt_install  -- nvidia-driver-cuda=580.159.04-1 && ")
    assert change.diff == "+nvidia-driver-cuda 580.159.04-1\n"
    assert change.signals == ("package:nvidia-driver-cuda:install",)


def test_each_package_that_moves_is_a_signal_of_its_own() -> None:
    found: dict[str, State] = {
        "nvidia-driver-cuda": ABSENT,
        "nvidia-kernel-open-dkms": installed("575.1-1"),
    }
    change = DRIVER.change(found, Planned())
    assert change is not None
    assert change.action == "upgrade"
    assert change.signals == ("package:nvidia-driver-cuda:install", "package:nvidia-kernel-open-dkms:upgrade")
    assert change.diff.splitlines()[1:] == [
        "-nvidia-kernel-open-dkms 575.1-1",
        "+nvidia-kernel-open-dkms 580.*",
    ]


def test_any_version_will_do_and_nothing_is_held() -> None:
    engine = Packages("docker", (Package("docker.io"),), hold=False)
    assert engine.change({"docker.io": installed("20.10", held=False)}, Planned()) is None
    change = engine.change({"docker.io": ABSENT}, Planned())
    assert change is not None
    assert (change.script, change.done) == ("apt_install  -- docker.io", "package_is docker.io '*'")


@pytest.mark.parametrize(
    ("wanted", "version", "right"),
    [
        (None, "1", True),
        ("1.20.0-1", "1.20.0-1", True),
        ("1.20.0-1", "1.20.0-1+b1", False),
        ("580.*", "580.159.04-1", True),
        ("580.*", "5800.1", False),
        ("5:20.10.*", "5:20.10.24~3-0~debian-bookworm", True),
    ],
)
def test_versions(wanted: str | None, version: str, right: bool) -> None:
    assert Package("p", wanted).accepts(version) is right
