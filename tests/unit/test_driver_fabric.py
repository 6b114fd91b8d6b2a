"""The Fabric Manager in the driver's version, and libraries of the branch: decisions, words of scripts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provision.probe import Output
from provision.resource import Change, Planned
from provision.roles.driver.fabric_manager import FabricManager, upstream
from provision.shell import assembled, text_of
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

needs_apt = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg-query is not installed")

MANAGER = FabricManager("debian", "nvidia-fabricmanager", "nvidia-driver-cuda")
ANSWER = b"""\
nvidia-driver-cuda\t1:580.159.04-1ubuntu1\tinstalled
nvidia-fabricmanager\t580.159.04-1\tinstalled
nvidia-fabricmanager-570\t570.211.01-1\tconfig-files
"""


def planned(*signals: str) -> Planned:
    return Planned((Change("packages:driver", "upgrade", "", "", "", signals=signals),))


def test_versions_are_read_without_epoch_and_suffix() -> None:
    state = FabricManager.states([MANAGER], Output(0, ANSWER))["fabric-manager"]
    assert state == {"nvidia-driver-cuda": "580.159.04", "nvidia-fabricmanager": "580.159.04"}
    rows = b"nvidia-driver-cuda\t580.159.04\nnvidia-fabric-manager\t580.95.05\n"
    rhel = FabricManager("rhel", "nvidia-fabric-manager", "nvidia-driver-cuda")
    assert FabricManager.states([rhel], Output(0, rows))["fabric-manager"] == {
        "nvidia-driver-cuda": "580.159.04",
        "nvidia-fabric-manager": "580.95.05",
    }
    assert FabricManager.states([MANAGER], Output(0, b""))["fabric-manager"] == {}


@pytest.mark.parametrize(
    ("manager", "driver", "before", "reason"),
    [
        ("580.1", "580.1", Planned(), None),
        ("580.1", "580.2", Planned(), "is at 580.1, the driver at 580.2"),
        ("580.1", None, Planned(), "is at 580.1, the driver at no version"),
        (None, None, Planned(), "nvidia-fabricmanager is not installed"),
        (
            "580.1",
            "580.1",
            planned("package:nvidia-driver-cuda:upgrade"),
            "driver or Fabric Manager change",
        ),
        ("580.1", "580.1", planned("package:nvidia-smi:upgrade"), None),
    ],
)
def test_it_is_made_equal_where_it_is_not(
    manager: str | None, driver: str | None, before: Planned, reason: str | None
) -> None:
    versions = {"nvidia-fabricmanager": manager, "nvidia-driver-cuda": driver}
    change = MANAGER.change({name: version for name, version in versions.items() if version}, before)
    assert (reason is None) == (change is None)
    if change and reason:
        assert reason in change.reason
        assert change.done == "fabric_manager_matches nvidia-fabricmanager nvidia-driver-cuda"
        assert change.script.endswith(" hold")


def test_one_that_nobody_wants_is_told_and_left() -> None:
    unwanted = FabricManager("debian", "", "nvidia-driver-cuda")
    state = {"nvidia-driver-cuda": "580.1", "nvidia-fabricmanager-570": "570.1"}
    assert unwanted.change(state, Planned()) is None
    assert "nvidia-fabricmanager-570 is installed" in unwanted.notes(state, Planned())[0]
    assert unwanted.notes({"nvidia-driver-cuda": "580.1"}, Planned()) == ()
    assert MANAGER.notes(state, Planned()) == ()


@pytest.mark.parametrize("family", ["debian", "rhel"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_probe_answers_where_nothing_is_installed(shell: str, family: Any) -> None:
    probe = FabricManager.probe([FabricManager(family, "", "nvidia-driver-cuda")])
    ran = subprocess.run([shell, "-c", script_of(probe)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("580.159.04-1", "580.159.04"),
        ("1:580.95.05-0ubuntu0.24.04.2", "580.95.05"),
        ("580.95.05", "580.95.05"),
        ("", ""),
    ],
)
def test_nvidias_version_in_that_of_a_package(version: str, expected: str) -> None:
    assert upstream(version) == expected


STUBS = """
fail() { echo "$*" >&2; return 1; }
package_state() {
  version=$MANAGER
  if [ -e installed ]; then version=580.2-1; fi
  if [ "$1" = nvidia-driver-cuda ]; then version=$DRIVER; fi
  [ -z "$version" ] || echo "installed hold $version"
}
apt_install() { echo "apt_install $*"; : >installed; }
hold_packages() { echo "hold_packages $*"; }
systemctl() { echo "systemctl $*"; }
"""


def words(shell: str, folder: Path, script: str, **environment: str) -> tuple[int, str, str]:
    """Run words of fabric.sh with stubs for the words of other files."""
    text = text_of("driver/match_fabric.sh") + STUBS + script
    ran = subprocess.run(
        [shell, "-c", text],
        cwd=folder,
        env={"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


@needs_apt
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("driver", "manager", "says"),
    [
        ("580.2-1", "580.2-1", ""),
        ("1:580.2-0ubuntu1", "580.2-1", ""),
        ("580.2-1", "580.1-1", "is at 580.1, the driver at 580.2"),
        ("580.2-1", "", "is at no version, the driver at 580.2"),
        ("", "", "is at no version, the driver at none"),
    ],
)
def test_the_word_that_compares(shell: str, tmp_path: Path, driver: str, manager: str, says: str) -> None:
    script = "fabric_manager_matches nvidia-fabricmanager nvidia-driver-cuda"
    code, _, err = words(shell, tmp_path, script, DRIVER=driver, MANAGER=manager)
    assert (code == 0) == (not says)
    assert says in err


@needs_apt
@pytest.mark.parametrize("shell", SHELLS)
def test_the_word_that_makes_equal_installs_exactly_the_drivers_version(shell: str, tmp_path: Path) -> None:
    script = (
        "match_fabric_manager nvidia-fabricmanager nvidia-driver-cuda hold"
        " && fabric_manager_matches nvidia-fabricmanager nvidia-driver-cuda"
    )
    code, out, err = words(shell, tmp_path, script, DRIVER="580.2-1", MANAGER="580.1-1")
    assert (code, err) == (0, "")
    assert "apt_install nvidia-fabricmanager --allow-downgrades -- nvidia-fabricmanager=580.2-*\n" in out
    assert "hold_packages nvidia-fabricmanager\n" in out
    assert "systemctl restart nvidia-fabricmanager.service\n" in out


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("library", "says"),
    [
        ("libnvidia-ml.so.580.173.02", ""),
        ("libnvidia-ml.so.565.57.01", "branch 580 was asked for, and the driver 565.57.01 is installed"),
        ("libnvidia-ml.so.5800.1", "branch 580 was asked for, and the driver 5800.1"),
        ("", "libnvidia-ml.so.1 is not installed"),
    ],
)
def test_packages_that_bring_another_branch_fail_the_step(
    shell: str, tmp_path: Path, library: str, says: str
) -> None:
    """As transitional packages of Ubuntu's archive do: their own version is the one that was asked for."""
    if library:
        (tmp_path / library).touch()
        (tmp_path / "libnvidia-ml.so.1").symlink_to(library)
        listed = f"\tlibnvidia-ml.so.1 (libc6,x86-64) => {tmp_path}/libnvidia-ml.so.1"
    else:
        listed = "\tlibc.so.6 (libc6,x86-64) => /lib/libc.so.6"
    program = tmp_path / "ldconfig"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}\nEND\n")
    program.chmod(0o755)
    text = text_of("driver/library.sh") + 'fail() { echo "$*" >&2; return 1; }\ndriver_is_branch 580'
    ran = subprocess.run(
        [shell, "-c", text],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode == 0) == (not says), ran.stderr
    assert says in ran.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("manager", "code", "found"),
    [
        ("dpkg-query", 1, True),
        ("dpkg-query", 0, False),
        ("dpkg-query", 2, False),  # it cannot tell
        ("rpm", 1, True),
        ("rpm", 0, False),
    ],
)
def test_a_library_that_no_package_has_is_found(
    shell: str, tmp_path: Path, manager: str, code: int, found: bool
) -> None:
    library = tmp_path / "libnvidia-ml.so.590.48.01"
    library.touch()
    programs = {
        "ldconfig": f"printf '\\tlibnvidia-ml.so.1 (libc6,x86-64) => {library}\\n'",
        manager: f"exit {code}",
        **{name: f'exec /usr/bin/{name} "$@"' for name in ("readlink", "sed", "timeout")},
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ran = subprocess.run(
        [
            shutil.which(shell) or shell,
            "-c",
            f"{assembled('driver/foreign.sh')}foreign_driver {tmp_path}/none",
        ],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == (f"library {library}\n" if found else "")
