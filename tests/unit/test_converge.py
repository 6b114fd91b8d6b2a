"""A host on its way through reboots and missing permissions, with a host that is played here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from provision.connection.login import Login
from provision.errors import HostError, RefusedError, UnreachableError
from provision.plan.declared import declare
from provision.plan.plan import Plan
from provision.plan.result import Result
from provision.plan.script import Event
from provision.probe import Output
from provision.resource import Change
from provision.role import Role, Settings
from provision.roles import all_roles
from provision.roles.driver.reboot import REBOOT as REBOOT_NEEDED
from provision.roles.driver.role import BRANCH_CHANGE
from provision.run import host as host_run
from provision.run.apply import BusyError, LostRunError
from provision.run.host import HostRun, Survey, Target
from tests.unit.examples import H100, settings_of


def step(name: str, action: str = "update", **values: Any) -> Change:
    return Change(name, action, f"{action} {name}", "true", "true", reason=f"{name} is wrong", **values)


REBOOT = step("module:nvidia", "reboot", reboot=30, needs=REBOOT_NEEDED, causes=("packages",))


@dataclass
class Played:
    """A host: the plans that it gives one after another, and what became of each run."""

    plans: Sequence[tuple[Change, ...]]
    boot: str = "0a0a"
    answers: Callable[[], str] | None = None
    ends: list[HostError] = field(default_factory=list)
    runs: list[tuple[str, list[str]]] = field(default_factory=list)
    connects: int = 1
    execs: int = 0
    login: Login = field(default_factory=lambda: Login("h", "127.0.0.1", 22, "root"))

    def close(self) -> None:
        """Nothing is open."""

    def run(self, script: str, **_: Any) -> Output:
        if "boot_id" in script:
            return Output(0, (self.answers() if self.answers else self.boot).encode())
        return Output(0)

    def apply(self, _: Any, plan: Plan, run: str, __: Any) -> list[Event]:
        if self.ends:
            raise self.ends.pop(0)
        self.runs.append((run, [change.resource for change in plan.changes]))
        events = [Event("ok", index) for index in range(len(plan.changes))]
        rebooting = bool(plan.changes[-1].reboot)
        if rebooting:
            self.boot = f"boot {len(self.runs)}"
        return [*events, Event("end", status="rebooting" if rebooting else "ok")]

    def plan(self, granted: tuple[str, ...]) -> Plan:
        first, *self.plans = self.plans
        return Plan("h", first, granted=granted)


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, Played]]:
    """Carry out the first plan of a host with these permissions."""

    def apply(host: Played, *granted: str) -> tuple[Result, Played]:
        monkeypatch.setattr(host_run, "apply", host.apply)
        monkeypatch.setattr(host_run, "attach", lambda *_: [])
        monkeypatch.setattr(host_run, "replan", lambda *_: host.plan(granted))
        monkeypatch.setattr(host_run, "declare", lambda *_: ())
        monkeypatch.setattr(host_run, "ask_facts", lambda _: (replace(H100, boot_id=host.boot), ""))
        monkeypatch.setattr(host_run, "POLL", 0.0)
        one = HostRun(Target("h", host.login, {}, granted), host)  # type: ignore[arg-type]
        one.survey = Survey(replace(H100, boot_id=host.boot), (), host.plan(granted))
        return one.apply("r", lambda *_: None), host

    return apply


def told(result: Result) -> str:
    assert result.error is not None
    return result.error.message


def test_a_run_goes_on_after_the_reboot(carried_out: Any) -> None:
    a, b, start = step("a"), step("b"), step("unit", "start", after_reboot=True)
    result, host = carried_out(Played([(a, REBOOT, b), (start, b), ()]), "reboot")
    assert (result.status, result.reboots, result.error) == ("changed", 1, None)
    assert host.runs == [("r", ["a", "module:nvidia"]), ("r-1", ["unit", "b"])]
    assert [change.resource for change in result.changes] == ["a", "module:nvidia", "unit", "b"]


def test_nothing_is_left_to_do_after_the_reboot(carried_out: Any) -> None:
    result, _ = carried_out(Played([(REBOOT,), ()]), "reboot")
    assert (result.status, result.reboots) == ("changed", 1)


def test_without_permission_the_run_ends_before_what_makes_a_reboot_necessary(carried_out: Any) -> None:
    result, host = carried_out(Played([(step("a"), step("packages"), REBOOT, step("b"))]))
    assert (result.status, result.reboots) == ("failed", 0)
    assert told(result) == "reboot needed: module:nvidia is wrong"
    assert host.runs == [("r", ["a"])]


def test_a_branch_change_without_permission_touches_nothing(carried_out: Any) -> None:
    swap = step("packages", "upgrade", needs=BRANCH_CHANGE)
    result, host = carried_out(Played([(step("a"), swap, step("b"))]))
    assert told(result) == "driver branch change is not allowed: packages is wrong"
    assert (result.status, host.runs) == ("failed", [])


def test_a_reason_that_outlives_its_reboot_is_told(carried_out: Any) -> None:
    result, host = carried_out(Played([(REBOOT,), (REBOOT,)]), "reboot")
    assert told(result) == "it was rebooted and still needs a reboot: module:nvidia is wrong"
    assert (result.status, result.reboots, len(host.runs)) == ("failed", 1, 1)


def test_another_reason_may_reboot_once_more_but_not_for_ever(carried_out: Any) -> None:
    reboots = [(replace(REBOOT, reason=str(n)),) for n in range(9)]
    result, _ = carried_out(Played(reboots), "reboot")
    assert (result.status, result.reboots) == ("failed", host_run.REBOOTS)


def test_what_was_not_approved_is_not_done_after_the_reboot(carried_out: Any) -> None:
    result, host = carried_out(Played([(REBOOT, step("b")), (step("b"), step("c"))]), "reboot")
    assert told(result) == "after the reboot the plan has more than was approved: update c (c is wrong)"
    assert len(host.runs) == 1


def test_a_host_that_never_comes_back_is_unreachable(carried_out: Any) -> None:
    def silent() -> str:
        raise UnreachableError("h", "no route to host")

    host = Played([(replace(REBOOT, reboot=1),)], answers=silent)
    result, _ = carried_out(host, "reboot")
    assert result.status == "unreachable"
    assert told(result) == "it did not come back within 1 s of its reboot: no route to host"


def test_a_host_that_does_not_go_down_is_told(carried_out: Any) -> None:
    host = Played([(replace(REBOOT, reboot=1),)], answers=lambda: "0a0a")
    result, _ = carried_out(host, "reboot")
    assert "it answers, and was not rebooted" in told(result)


def test_the_connection_may_end_before_the_last_event_of_a_reboot(carried_out: Any) -> None:
    lost = LostRunError("h", "the host knows nothing of run r any more")
    host = Played([(step("a"), REBOOT), ()], ends=[lost], answers=lambda: "another")
    result, _ = carried_out(host, "reboot")
    assert (result.status, result.reboots) == ("changed", 1)
    assert [change.resource for change in result.changes] == ["a", "module:nvidia"]


def test_a_reboot_by_somebody_else_is_a_failure_of_the_run(carried_out: Any) -> None:
    lost = LostRunError("h", "the host knows nothing of run r any more")
    result, _ = carried_out(Played([(step("a"),)], ends=[lost], answers=lambda: "another"))
    assert (result.status, told(result)) == ("failed", lost.message)


def test_the_run_of_another_operator_is_waited_for(carried_out: Any) -> None:
    host = Played([(step("a"), step("b")), (step("b"),), ()], ends=[BusyError("h", "their-run")])
    result, _ = carried_out(host)
    assert (result.status, host.runs) == ("changed", [("r", ["b"])])


def test_what_another_run_left_must_not_go_beyond_the_approval(carried_out: Any) -> None:
    host = Played([(step("a"),), (step("c"),)], ends=[BusyError("h", "their-run")])
    result, _ = carried_out(host)
    assert told(result) == "after another run the plan has more than was approved: update c (c is wrong)"


def test_a_host_that_is_not_right_after_all_failed(carried_out: Any) -> None:
    result, _ = carried_out(Played([(step("a"),), (step("a"),)]))
    assert told(result) == "not converged: update a is still to be done (a is wrong)"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (lambda *_: 1 / 0, "role mine failed: ZeroDivisionError: division by zero"),
        (lambda *_: sys.exit(0), "role mine failed: SystemExit: 0"),
        (lambda *_: None, "role mine failed: TypeError"),
        (lambda *_: ["x"], "role mine failed: TypeError: 'x' is not a resource"),
    ],
)
def test_a_role_that_fails_is_this_hosts_fault(body: Any, says: str) -> None:
    role = Role("mine", Settings, body)
    with pytest.raises(RefusedError, match=re.escape(says)):
        declare("h", {role: Settings()}, H100)


def test_what_stops_every_package_operation_comes_first() -> None:
    roles = [role for role in all_roles() if role.name in ("driver", "toolkit")]
    settings = {role: settings_of(role.name) for role in roles}
    kinds = [item.resource.kind for item in declare("h", settings, H100)]
    others = kinds.count("other-sources")
    assert others > 0
    assert set(kinds[:others]) == {"other-sources"}
