"""Units that nobody wants any more: found by our mark, and removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.probe import Output
from provision.resource import Planned
from provision.resources.other_units import NoOtherUnits
from provision.shell import constant
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

MARK = constant("shell/own_units.sh", "unit_mark")
WANTED = NoOtherUnits("triton", ("triton@main.service",))


@pytest.mark.parametrize("shell", SHELLS)
def test_only_units_with_our_mark_are_found(shell: str, tmp_path: Path) -> None:
    for name, text in {
        "triton@main.service": f"{MARK}; keep\n",
        "triton@old.service": f"{MARK}\n[Unit]\n",
        "triton@theirs.service": "[Unit]\nDescription=by hand\n",
        "other@x.service": f"{MARK}\n",
    }.items():
        (tmp_path / name).write_text(text)
    script = script_of(NoOtherUnits.probe([WANTED])).replace("/etc/systemd/system", str(tmp_path))
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True)
    found = NoOtherUnits.states([WANTED], Output(0, ran.stdout))
    assert found == {"no-other-units:triton": ("triton@old.service",)}


def test_nothing_left_over_needs_nothing() -> None:
    assert NoOtherUnits.states([WANTED], Output(0, b"")) == {WANTED.id: ()}
    assert WANTED.change((), Planned()) is None


def test_what_is_left_over_is_stopped_and_removed() -> None:
    change = WANTED.change(("triton@old.service", "triton@b.service"), Planned())
    assert change is not None
    assert change.action == "remove"
    assert "triton@old.service, triton@b.service" in change.summary
    assert change.script.count("retire_unit") == 2
    assert "[ ! -e /etc/systemd/system/triton@old.service ]" in change.done
    assert change.preview
    told = WANTED.refine(
        change,
        Output(0, b"Id=triton@old.service\nActiveState=active\n\nId=triton@b.service\nActiveState=failed\n"),
    )
    assert told.impact == ("triton@old.service is running and will be stopped",)
    assert WANTED.refine(change, Output(1, b"")).impact == ()
