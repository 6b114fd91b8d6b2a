"""Installations with apt: its simulation is compared with what the plan showed, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

INSTALL = "apt_approved -- new=1"
REMOVES = "Remv old [1]\nRemv older [2]\nInst new (3)\nConf new (3)\n"
HELD = (
    "The following held packages will be changed:\n  pinned:amd64 stuck\nThe following NEW packages:\n  new\n"
)


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """A host with an apt-get that simulates what the test says and otherwise notes its calls."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/simulation", "Inst new (3)\n")
    made.program("apt-get", '[ "$1" != -s ] || cat "$root/simulation"')
    return made


def installs(root: FakeRoot) -> int:
    """How often apt-get was called to do something."""
    return sum(call.startswith("apt-get -q") and " install " in call for call in root.calls)


def test_what_removes_nothing_is_installed_as_it_was_simulated(root: FakeRoot) -> None:
    assert root.words(INSTALL).exit_code == 0
    simulated, done = root.calls
    arguments = (
        "-o APT::Ignore-Hold=true install --no-install-recommends --allow-change-held-packages -- new=1"
    )
    assert simulated == f"apt-get -s -q -y {arguments}"
    assert done.startswith("apt-get -q -y ")
    assert done.endswith(arguments)


@pytest.mark.parametrize("shown", ["", "may_remove=;", "may_remove=old;", "may_remove='old olde';"])
def test_a_removal_that_the_plan_did_not_show_is_not_made(root: FakeRoot, shown: str) -> None:
    root.write("/simulation", REMOVES)
    refused = root.words(f"{shown} {INSTALL}")
    missing = "older" if "old" in shown else "old"
    assert (refused.exit_code, installs(root)) == (1, 0)
    assert refused.err == f"apt would remove {missing}, which the plan did not show: plan again\n"


def test_a_removal_that_the_plan_showed_is_made(root: FakeRoot) -> None:
    root.write("/simulation", REMOVES)
    assert root.words(f"may_remove='older old'; {INSTALL}").exit_code == 0
    assert installs(root) == 1


@pytest.mark.parametrize(
    ("ours", "stranger"), [("", "pinned:amd64"), ("pinned\n", "stuck"), ("stuck\n", "pinned:amd64")]
)
def test_what_somebody_else_holds_is_not_changed(root: FakeRoot, ours: str, stranger: str) -> None:
    root.write("/simulation", HELD)
    root.write("/var/lib/provision/held", ours)
    refused = root.words(INSTALL)
    assert (refused.exit_code, installs(root)) == (1, 0)
    assert refused.err.startswith(f"{stranger} is held by somebody, and apt would change it")


def test_what_we_hold_is_changed(root: FakeRoot) -> None:
    root.write("/simulation", HELD)
    root.write("/var/lib/provision/held", "pinned\nstuck\n")
    assert (root.words(INSTALL).exit_code, installs(root)) == (0, 1)


def test_a_simulation_that_fails_installs_nothing(root: FakeRoot) -> None:
    root.program("apt-get", 'echo "E: no such package" >&2; exit 100')
    refused = root.words(INSTALL)
    assert (refused.exit_code, refused.err, len(root.calls)) == (100, "E: no such package\n", 1)


def test_an_installation_that_fails_keeps_its_exit_code(root: FakeRoot) -> None:
    root.program("apt-get", '[ "$1" = -s ] || { echo "E: broken" >&2; exit 100; }')
    refused = root.words(INSTALL)
    assert (refused.exit_code, refused.err) == (100, "E: broken\n")
