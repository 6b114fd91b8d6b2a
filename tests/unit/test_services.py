"""Units: what systemctl show prints, and what is planned for it."""

from __future__ import annotations

import pytest

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import ABSENT, Change, Handler, Missing, Planned
from provision.resources.service import NOT_ENABLEABLE, Service, UnitState

ANSWER = b"""\
Id=docker.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

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
        "service:docker.service": UP,
        "service:triton@main.service": UnitState("activating", "auto-restart", "disabled"),
        "service:triton@none.service": ABSENT,
        "service:nvidia-persistenced.service": UnitState("inactive", "dead", "masked"),
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
    assert change.done == "unit_is_up a.service"
    assert change.script == "enable_unit a.service && start_unit a.service 90"


@pytest.mark.parametrize("enabled", ["enabled", *NOT_ENABLEABLE])
def test_a_unit_that_is_right_needs_nothing(enabled: str) -> None:
    assert Service("a.service").change(unit(enabled=enabled), Planned()) is None


@pytest.mark.parametrize("enabled", ["masked", "masked-runtime"])
def test_a_masked_unit_is_somebodys_decision(enabled: str) -> None:
    with pytest.raises(Refusal, match=r"a\.service is masked") as caught:
        Service("a.service").change(unit("inactive", "dead", enabled), Planned())
    assert "systemctl unmask a.service" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sub", "restarted"), [("start-post", True), ("auto-restart", False), ("dead", False)]
)
def test_a_unit_that_is_coming_up_with_old_files_is_restarted(sub: str, restarted: bool) -> None:
    """A start that waits for a unit which has read its files already does not give it the new ones."""
    state = UnitState("inactive" if sub == "dead" else "activating", sub, "enabled")
    service = Service("a.service")
    handler = Handler(
        "restart a.service", on=("file:/a",), script="", covered_by=("service:a.service:start",)
    )
    changes = [Change("file:/a", "update", "", "", "")]
    start = service.change(state, Planned(tuple(changes)))
    assert start is not None
    assert (handler.change(False, Planned((*changes, start))) is not None) is restarted
