"""Units: what systemctl show prints, and what is planned for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import Refusal
from provision.plan.plan import STEPS
from provision.probe import Output
from provision.resource import ABSENT, Change, Handler, Missing, Planned
from provision.resources.service import NOT_ENABLEABLE, RELOAD, STARTS, Service, UnitState
from provision.shell import assembled
from tests.unit.sandbox import SHELLS, Sandbox

ANSWER = b"""\
Id=docker.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
FragmentPath=/lib/systemd/system/docker.service
NeedDaemonReload=yes

Id=triton@main.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
UnitFileState=disabled

Id=triton@none.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=

Id=nvidia-persistenced.service
LoadState=masked
ActiveState=inactive
SubState=dead
UnitFileState=masked
"""
"""What systemd 252 prints for these."""

UNITS = ["docker.service", "triton@main.service", "triton@none.service", "nvidia-persistenced.service"]
UP = UnitState("active", "running", "enabled")


INSTALLED = Planned((Change("packages:driver", "upgrade", "upgrade", "", ""),))


@pytest.mark.parametrize(
    ("after", "planned", "action"),
    [
        (("packages:driver",), INSTALLED, "keep"),
        (("packages:driver",), Planned(), None),
        (("packages:other",), INSTALLED, None),
        ((), INSTALLED, None),
    ],
)
def test_a_unit_is_looked_at_again_after_what_may_stop_it(
    after: tuple[str, ...], planned: Planned, action: str | None
) -> None:
    """A package that takes the place of another disables and stops what both have."""
    change = Service("a.service", after=after).change(UP, planned)
    assert (change.action if change else None) == action
    if change:
        assert change.reason == "after packages:driver"
        assert change.done == "unit_is_up a.service"
        assert "start_unit a.service" in change.script


def unit(active: str = "active", sub: str = "running", enabled: str = "enabled") -> UnitState:
    return UnitState(active, sub, enabled)


def test_the_answer_of_systemctl() -> None:
    assert Service.states([Service(name) for name in UNITS], Output(0, ANSWER)) == {
        "service:docker.service": replace(UP, fragment="/lib/systemd/system/docker.service", stale=True),
        "service:triton@main.service": UnitState("activating", "auto-restart", "disabled"),
        "service:triton@none.service": ABSENT,
        "service:nvidia-persistenced.service": UnitState("inactive", "dead", "masked", "masked"),
    }


def test_one_question_for_all_units() -> None:
    probe = Service.probe([Service("a.service"), Service("b@x y.service")])
    assert probe.script.endswith(" -- a.service 'b@x y.service'")


def test_a_host_without_systemd_is_no_answer() -> None:
    error = b"System has not been booted with systemd as init system (PID 1). Can't operate.\n"
    with pytest.raises(ValueError, match="0 answers for 1 units: System has not been booted"):
        Service.states([Service("a.service")], Output(1, b"", error))


@pytest.mark.parametrize(
    ("state", "action", "summary", "reason"),
    [
        (ABSENT, "start", "enable and start a.service", "the unit is not there yet"),
        (unit("inactive", "dead"), "start", "start a.service", "it is inactive (dead)"),
        (unit("failed", "failed"), "start", "start a.service", "it is failed (failed)"),
        (unit("activating", "auto-restart"), "start", "start a.service", "it is activating (auto-restart)"),
        (unit("activating", "start-post"), "await", "wait for a.service", "it is activating (start-post)"),
        (unit(enabled="disabled"), "enable", "enable a.service", "it is disabled"),
        (unit(enabled=""), "enable", "enable a.service", "it is not enabled"),
        (
            unit("inactive", "dead", "disabled"),
            "start",
            "enable and start a.service",
            "it is inactive (dead); it is disabled",
        ),
    ],
)
def test_a_unit_that_is_not_right(state: UnitState | Missing, action: str, summary: str, reason: str) -> None:
    change = Service("a.service", timeout=90).change(state, Planned())
    assert change is not None
    assert (change.action, change.summary, change.reason) == (action, summary, reason)
    settled = " && not_owed restart-a.service" if action == "start" else ""
    settled += " && counts_no_restarts a.service" if action in STARTS else ""
    assert change.done == f"unit_is_up a.service{settled}"
    assert change.script == "enable_unit a.service && start_unit a.service 90"


@pytest.mark.parametrize("enabled", ["enabled", *NOT_ENABLEABLE])
def test_a_unit_that_is_right_needs_nothing(enabled: str) -> None:
    assert Service("a.service").change(unit(enabled=enabled), Planned()) is None


@pytest.mark.parametrize("enabled", ["masked", "masked-runtime"])
def test_a_masked_unit_is_somebodys_decision(enabled: str) -> None:
    with pytest.raises(Refusal, match=r"a\.service is masked") as caught:
        Service("a.service").change(unit("inactive", "dead", enabled), Planned())
    assert "systemctl unmask a.service" in str(caught.value.hint)


REWRITTEN = Planned((Change("file:/a", "update", "", "", ""),))
READER = Service("a.service", reads=("file:/a",))
RESTART = Handler("restart a.service", on=("file:/a",), script="", covered_by=("service:a.service:start",))


@pytest.mark.parametrize(
    ("sub", "summary"), [("start-post", "restart"), ("auto-restart", "start"), ("dead", "start")]
)
def test_a_unit_that_is_coming_up_with_old_files_is_restarted_once(sub: str, summary: str) -> None:
    """A start that waits for a unit which has read its files already does not give it the new ones."""
    state = unit("inactive" if sub == "dead" else "activating", sub)
    start = READER.change(state, REWRITTEN)
    assert start is not None
    assert (start.action, start.summary) == ("start", f"{summary} a.service")
    assert RESTART.change(False, Planned((*REWRITTEN.changes, start))) is None


def test_a_unit_without_a_file_that_runs_is_told_as_it_is() -> None:
    state = UnitState("active", "running", "", load="not-found")
    start = READER.change(state, REWRITTEN)
    assert start is not None
    assert (start.action, start.reason) == ("start", "it is active (running), and its unit file is gone")


@pytest.mark.parametrize("load", ["bad-setting", "error"])
def test_a_unit_that_systemd_cannot_read_is_refused_unless_it_is_written_anew(load: str) -> None:
    state = UnitState("inactive", "dead", "enabled", load=load)
    with pytest.raises(Refusal, match=f"systemd does not load a.service: {load}"):
        READER.change(state, Planned())
    assert READER.change(state, REWRITTEN) is not None


@pytest.mark.parametrize(
    ("planned", "action"), [(Planned(), "reload"), (Planned((Change(RELOAD, "run", "", "", ""),)), None)]
)
def test_files_that_systemd_has_not_read_yet_are_read(planned: Planned, action: str | None) -> None:
    """Without a restart: what runs does so with what was read before."""
    change = Service("a.service").change(UnitState("active", "running", "enabled", stale=True), planned)
    assert (change.action if change else None) == action
    assert change is None or (change.script, change.reloads_systemd) == ("systemctl daemon-reload", True)


PROGRAMS = """
systemctl() {
  echo "$*" >>/run/calls
  case "$*" in
    *SubState*) echo "$sub" ;;
    is-active*) [ "$met" = yes ] ;;
    *ConditionResult*) echo "$met" ;;
    status*) echo "  Condition: start condition failed"; echo "  ConditionPathExists=/x was not met" ;;
  esac
}
journalctl() { :; }
"""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("sub", "owed", "verb"),
    [
        ("start-post", True, "restart"),
        ("running", True, "restart"),
        ("start-post", False, "start"),
        ("auto-restart", False, "restart"),
        ("dead", False, "start"),
    ],
)
def test_a_start_of_a_unit_that_is_owed_a_restart_restarts_it(
    tmp_path: Path, shell: str, sub: str, owed: bool, verb: str
) -> None:
    """Also where a run was cut after it had written the files, or the unit moved on since the plan."""
    box = Sandbox.make(tmp_path, shell)
    note = tmp_path / "lib/provision/owed/restart-a.service"
    if owed:
        note.parent.mkdir(parents=True)
        note.touch()
    script = f'{assembled(STEPS)}{PROGRAMS}timeout() {{ shift 3; "$@"; }}\nrun=/run; sub={sub} met=yes\n'
    assert box.sh(f"{script}start_unit a.service 5").ok
    calls = (tmp_path / "run/calls").read_text().splitlines()
    assert f"{verb} -- a.service" in calls
    assert calls.index("reset-failed -- a.service") < calls.index(f"{verb} -- a.service")
    assert not note.exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_condition_that_keeps_a_unit_down_is_told(tmp_path: Path, shell: str) -> None:
    box = Sandbox.make(tmp_path, shell)
    script = f'{assembled(STEPS)}{PROGRAMS}timeout() {{ shift 3; "$@"; }}\nrun=/run; sub=dead met=no\n'
    answer = box.sh(f"{script}start_unit a.service 5")
    assert answer.exit_code == 1
    assert "ConditionPathExists=/x was not met" in answer.out
    assert "a.service was not started: a condition in its unit files is not met" in answer.err
