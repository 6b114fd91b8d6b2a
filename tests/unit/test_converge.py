"""A host on its way through reboots, missing permissions, failures and the runs of others."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from typing import Any

import pytest

from provision.errors import ChangeError, RefusedError, UnreachableError
from provision.plan.declared import declare
from provision.plan.plan import probes
from provision.plan.result import Doing, Result
from provision.plan.script import Event
from provision.probe import Output
from provision.resource import AnyResource, Handler
from provision.resources.reboot import REBOOT as REBOOT_NEEDED
from provision.role import Role, Settings
from provision.roles import all_roles
from provision.roles.driver.role import BRANCH_CHANGE
from provision.run.host import OTHERS, POLL, PREVIEW, REBOOTS, HostRun
from provision.run.target import Target
from tests.unit.examples import H100, settings_of
from tests.unit.fake_host import FakeHost, Thing, encoded, run_of

MODULE = "module:nvidia"
REBOOT = Thing(MODULE, reboot=30, needs=REBOOT_NEEDED, causes=("packages",))
A, B, C = Thing("a"), Thing("b"), Thing("c")
DUE = {MODULE: "reboot"}


def converged(host: FakeHost, *resources: AnyResource, granted: str = "", run_id: str = "r") -> Result:
    """Survey a host and apply its plan."""
    run = run_of(host, *resources, granted=tuple(granted.split()))
    run.make_survey(lambda *_: None)
    return run.apply(run_id, lambda *_: None)


def told(result: Result) -> str:
    assert result.error is not None
    return result.error.message


def made(result: Result) -> list[str]:
    return [change.resource for change in result.changes]


def wants(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "update")


# --- without a reboot -----------------------------------------------------------------------------


def test_a_host_with_nothing_to_do_costs_one_connection_and_two_commands() -> None:
    host = FakeHost({"a": "", "b": ""})
    result = converged(host, A, B)
    assert (result.status, result.right, result.changes) == ("ok", 2, ())
    assert (result.connects, result.execs, host.runs) == (1, 1, [])


def test_what_is_wrong_is_changed_and_a_fresh_plan_is_empty() -> None:
    host = FakeHost({"a": "update", "b": "", "c": "create"})
    result = converged(host, A, B, C)
    assert (result.status, result.right, result.error) == ("changed", 1, None)
    assert (host.runs, made(result)) == ([("r", ["a", "c"])], ["a", "c"])
    assert (result.connects, result.execs) == (1, 3)


def test_a_host_is_asked_what_changes_would_do_before_they_are_shown() -> None:
    host = FakeHost(wants("a", "b"))
    run = run_of(host, A, Thing("b", asks=True))
    run.make_survey(lambda *_: None)
    assert run.survey is not None
    assert [change.simulation for change in run.survey.plan.changes] == ["", "would change b\n"]
    assert (host.execs, host.timeouts[1]) == (2, PREVIEW)
    assert run.apply("r", lambda *_: None).status == "changed"


def test_a_host_that_is_not_right_after_all_failed() -> None:
    host = FakeHost(wants("a", "b"))
    host.incidents.undone = {"a"}
    result = converged(host, A, B)
    assert (result.status, made(result)) == ("failed", ["a", "b"])
    assert told(result) == "not converged: update a is still to be done (a is wrong)"
    assert isinstance(result.error, ChangeError)
    assert result.error.resource == "a"


@pytest.mark.parametrize(
    ("status", "output", "message", "code", "hint"),
    [
        (
            "100",
            "E: odd",
            "a: update a: exit 100",
            100,
            "the whole output: /run/provision/r/1.log on the host",
        ),
        ("1", "No space left on device", "a: update a: exit 1", 1, "df -h"),
        ("guard", "", "a: update a: it was changed since the plan was made", None, "plan again"),
        (
            "unproven",
            "a is not there",
            "a: update a: the command succeeded, and what it should bring about is not there",
            None,
            "the whole output: /run/provision/r/1.log on the host",
        ),
    ],
)
def test_a_step_that_fails_is_told_with_what_it_printed(
    status: str, output: str, message: str, code: int | None, hint: str
) -> None:
    host = FakeHost(wants("b", "a", "c"))
    host.incidents.fails = {"a": (status, output)}
    result = converged(host, B, A, C)
    assert (result.status, made(result), told(result)) == ("failed", ["b"], message)
    assert isinstance(result.error, ChangeError)
    assert (result.error.resource, result.error.exit_code, result.error.stderr) == ("a", code, output)
    assert hint in str(result.error.hint)


def test_what_a_failed_run_owes_is_done_by_the_next() -> None:
    restart = Handler("restart", on=("a",), script="true")
    host = FakeHost(wants("a", "b"))
    host.incidents.fails = {"b": ("1", "")}
    assert converged(host, A, B, restart).status == "failed"
    assert (host.wants, host.owed) == ({"a": "", "b": "update"}, {"restart"})
    host.incidents.fails = {}
    result = converged(host, A, B, restart, run_id="r2")
    assert (result.status, made(result)) == ("changed", ["b", "handler:restart"])
    assert host.owed == set()


def test_a_run_that_was_interrupted_on_the_host_failed() -> None:
    host = FakeHost(wants("a"))
    host.incidents.ends = "interrupted"
    result = converged(host, A)
    assert (result.status, told(result)) == ("failed", "run r was interrupted on the host")


def test_a_host_that_is_lost_during_its_run_is_unreachable() -> None:
    host = FakeHost(wants("a"))
    host.incidents.cuts = [1] + [0] * 9
    result = converged(host, A)
    assert result.status == "unreachable"
    assert told(result).endswith("whether the run goes on there is not known")


# --- permissions ----------------------------------------------------------------------------------


def test_without_permission_the_run_ends_before_what_makes_a_reboot_necessary() -> None:
    host = FakeHost({**wants("a", "packages", "b"), **DUE})
    result = converged(host, A, Thing("packages"), REBOOT, B)
    assert (result.status, result.reboots, made(result)) == ("failed", 0, ["a"])
    assert told(result) == f"reboot needed: {MODULE} is wrong"
    assert host.runs == [("r", ["a"])]


def test_a_branch_change_without_permission_touches_nothing() -> None:
    host = FakeHost(wants("a", "packages", "b"))
    result = converged(host, A, Thing("packages", needs=BRANCH_CHANGE), B)
    assert told(result) == "driver branch change is not allowed: packages is wrong"
    assert (result.status, host.runs) == ("failed", [])


# --- reboots --------------------------------------------------------------------------------------


def test_a_run_goes_on_after_the_reboot() -> None:
    host = FakeHost({**wants("a", "b"), **DUE})
    host.incidents.after_boot = [{"unit": "start"}]
    host.incidents.down = 3
    unit = Thing("unit", after_reboot=True)
    result = converged(host, A, REBOOT, unit, B, granted="reboot")
    assert (result.status, result.reboots, result.error) == ("changed", 1, None)
    assert host.runs == [("r", ["a", MODULE]), ("r-1", ["unit", "b"])]
    assert made(result) == ["a", MODULE, "unit", "b"]
    assert host.clock.slept == [POLL] * 3
    assert result.seconds == 3 * POLL


def test_what_is_done_with_a_host_is_told_along_the_way() -> None:
    host = FakeHost({**wants("a", "b"), **DUE})
    host.incidents.down = 2
    run = run_of(host, A, REBOOT, B, granted=("reboot",))
    events: list[Event | Doing | str] = []
    run.make_survey(lambda _, event: events.append(event))
    run.apply("r", lambda _, event: events.append(event))
    assert [event if not isinstance(event, Event) else f"{event.kind} {event.index}" for event in events] == [
        Doing("applying", 2),
        "start 0",
        "ok 0",
        "start 1",
        "ok 1",
        "end -1",
        Doing("rebooting"),
        "reboot: waiting up to 30 s for it to come back",
        "back after 4 s; 1 change left",
        Doing("applying", 1),
        "start 0",
        "ok 0",
        "end -1",
    ]


def test_nothing_is_left_to_do_after_the_reboot() -> None:
    host = FakeHost(DUE)
    result = converged(host, REBOOT, granted="reboot")
    assert (result.status, result.reboots, len(host.runs)) == ("changed", 1, 1)


def test_after_the_reboot_roles_see_the_facts_of_the_new_kernel() -> None:
    host = FakeHost({**DUE, "6.1.0-1-amd64": "update"})
    role = Role("kernels", Settings, lambda _, facts: [REBOOT, Thing(facts.kernel, after_reboot=True)])
    target = Target("h", host.login, {role: Settings()}, ("reboot",))
    run = HostRun(target, host, host.clock, host.clock.sleep)
    run.make_survey(lambda *_: None)
    assert made(run.apply("r", lambda *_: None)) == [MODULE, "6.1.0-1-amd64"]


def test_a_reason_that_outlives_its_reboot_is_told() -> None:
    host = FakeHost(DUE)
    host.incidents.after_boot = [DUE]
    result = converged(host, REBOOT, granted="reboot")
    assert told(result) == f"it was rebooted and still needs a reboot: {MODULE} is wrong"
    assert (result.status, result.reboots, len(host.runs)) == ("failed", 1, 1)


def test_another_reason_may_reboot_once_more_but_not_for_ever() -> None:
    host = FakeHost(DUE)
    host.incidents.after_boot = [{MODULE: f"reboot reason {n}"} for n in range(9)]
    result = converged(host, REBOOT, granted="reboot")
    assert (result.status, result.reboots, host.boot) == ("failed", REBOOTS, REBOOTS)
    host = FakeHost(DUE)
    host.incidents.after_boot = [{MODULE: f"reboot reason {n}"} for n in range(REBOOTS - 1)]
    assert converged(host, REBOOT, granted="reboot").status == "changed"


def test_what_was_not_approved_is_not_done_after_the_reboot() -> None:
    host = FakeHost({**DUE, "b": "update"})
    host.incidents.after_boot = [{"c": "update"}]
    result = converged(host, REBOOT, B, C, granted="reboot")
    assert told(result) == "after the reboot the plan has more than was approved: update c (c is wrong)"
    assert len(host.runs) == 1


def test_a_host_that_never_comes_back_is_unreachable() -> None:
    host = FakeHost(DUE)
    host.incidents.down = math.inf
    result = converged(host, REBOOT, granted="reboot")
    assert (result.status, made(result)) == ("unreachable", [MODULE])
    assert told(result) == "it did not come back within 30 s of its reboot: no route to host"
    assert 30 < result.seconds <= 30 + POLL


def test_a_host_that_does_not_go_down_is_told() -> None:
    host = FakeHost(DUE)
    host.incidents.stays_up = True
    result = converged(host, REBOOT, granted="reboot")
    assert "it answers, and was not rebooted" in told(result)


@pytest.mark.parametrize("lines", range(5))
def test_the_connection_may_end_before_the_last_event_of_a_reboot(lines: int) -> None:
    host = FakeHost({"a": "update", **DUE})
    host.incidents.cuts = [lines]
    result = converged(host, A, REBOOT, granted="reboot")
    assert (result.status, result.reboots) == ("changed", 1)
    assert made(result) == ["a", MODULE]


def test_a_reboot_by_somebody_else_is_a_failure_of_the_run() -> None:
    host = FakeHost(wants("a", "b"))
    host.incidents.cuts, host.incidents.forgets = [2], True
    result = converged(host, A, B)
    assert result.status == "failed"
    assert told(result) == "the host does not know run r any more: it was rebooted"


def test_a_session_that_ended_while_a_run_was_followed_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FakeHost(wants("a"))
    real, lost = host.run, [UnreachableError("h", "the session ended")]

    def run(*arguments: Any, **options: Any) -> Output:
        if host.runs and lost:
            raise lost.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(host, "run", run)
    result = converged(host, A)
    assert (result.status, made(result), lost) == ("changed", ["a"], [])


# --- somebody else's run --------------------------------------------------------------------------


def test_a_run_that_is_under_way_is_followed_before_the_host_is_planned() -> None:
    host = FakeHost(wants("a", "b"))
    host.busy_with("theirs", "a")
    events: list[Any] = []
    run = run_of(host, A, B)
    run.make_survey(lambda _, event: events.append(event))
    assert events[0] == "run theirs is under way here; attached to it"
    assert events[-1] == Event("end", status="ok")
    assert run.survey is not None
    assert [change.resource for change in run.survey.plan.changes] == ["b"]


def test_the_run_of_another_operator_is_waited_for() -> None:
    host = FakeHost(wants("a", "b"))
    host.busy_with("theirs", "a", late=True)
    result = converged(host, A, B)
    assert (result.status, host.runs) == ("changed", [("r-1", ["b"])])


def test_another_run_may_have_left_nothing_to_do() -> None:
    host = FakeHost(wants("a"))
    host.busy_with("theirs", "a", late=True)
    result = converged(host, A)
    assert (result.status, result.changes, host.runs) == ("ok", (), [])


def test_what_another_run_left_must_not_go_beyond_the_approval() -> None:
    host = FakeHost({"a": "update", "c": ""})
    host.busy_with("theirs", late=True)
    run = run_of(host, A, C)
    run.make_survey(lambda *_: None)
    host.wants["c"] = "update"
    result = run.apply("r", lambda *_: None)
    assert told(result) == "after another run the plan has more than was approved: update c (c is wrong)"
    assert host.runs == []


def test_a_run_that_another_was_started_before_gives_way_and_does_what_that_left() -> None:
    host = FakeHost(wants("a", "b"))
    host.busy_with("theirs", "a", late=True)
    host.incidents.overtaken = ["theirs"]
    run = run_of(host, A, B)
    run.make_survey(lambda *_: None)
    events: list[Any] = []
    result = run.apply("r", lambda _, event: events.append(event))
    assert (result.status, made(result), host.runs) == ("changed", ["b"], [("r-1", ["b"])])
    assert "run r did nothing: run theirs was started since; attached to it" in events


def test_a_run_that_was_overtaken_by_one_that_is_over_is_planned_anew() -> None:
    host = FakeHost(wants("a"))
    host.incidents.overtaken = ["", ""]
    assert (converged(host, A).status, host.runs) == ("changed", [("r-2", ["a"])])


def test_others_do_not_come_first_for_ever() -> None:
    host = FakeHost(wants("a"))
    host.incidents.overtaken = [""] * 99
    result = converged(host, A)
    assert (result.status, host.runs, len(host.spools)) == ("failed", [], OTHERS + 1)
    assert told(result) == f"run r-{OTHERS} did nothing: another run was started since"


@pytest.mark.parametrize(("steps", "place"), [(0, "before its first step"), (1, "after step 1/2")])
def test_a_run_that_somebody_stopped_says_who_and_the_next_one_does_the_rest(steps: int, place: str) -> None:
    host = FakeHost(wants("a", "b"))
    host.incidents.ends, host.incidents.steps = f"stopped {encoded('ann@desk')}", steps
    result = converged(host, A, B)
    assert (result.status, told(result)) == ("failed", f"run r was stopped by ann@desk {place}")
    assert made(result) == ["a"][:steps]
    host.incidents.ends = ""
    assert converged(host, A, B, run_id="r2").status == "changed"
    assert set(host.wants.values()) == {""}


def test_a_run_without_a_name_is_not_waited_for() -> None:
    """It has just taken the lock."""
    host = FakeHost(wants("a"))
    host.busy_with("", late=True)
    result = converged(host, A)
    assert (result.status, told(result)) == ("failed", "run of another operator is under way on the host")


# --- what roles declare ---------------------------------------------------------------------------


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


def test_where_packages_come_from_is_settled_first() -> None:
    """A source that stops every package operation is gone, but not before what takes its place was read."""
    roles = [role for role in all_roles() if role.name in ("driver", "toolkit")]
    settings = {role: settings_of(role.name) for role in roles}
    kinds = [item.resource.kind for item in declare("h", settings, H100)]
    last = max(n for n, kind in enumerate(kinds) if kind == "other-sources")
    assert set(kinds[: last + 1]) == {"file", "other-sources"}
    assert kinds[0] == kinds[1] == "file"


def test_nodes_are_looked_at_before_nvidia_smi_makes_them() -> None:
    driver = next(role for role in all_roles() if role.name == "driver")
    names = [probe.name for probe in probes(declare("h", {driver: settings_of("driver")}, H100))]
    assert "device-nodes" in names
    assert names[-1] == "driver-says"


# --- steps that never ran -------------------------------------------------------------------------


def test_steps_behind_one_that_failed_are_told() -> None:
    host = FakeHost(wants("a", "b", "c"))
    host.incidents.fails = {"b": ("1", "no")}
    result = converged(host, A, B, C)
    assert (result.status, made(result), result.not_run) == ("failed", ["a"], 1)


def test_what_is_held_back_by_a_missing_permission_never_ran() -> None:
    host = FakeHost({"a": "update", **DUE})
    result = converged(host, A, REBOOT)
    assert (result.status, made(result), result.not_run) == ("failed", ["a"], 1)


def test_a_step_that_was_already_so_is_not_a_change() -> None:
    host = FakeHost(wants("a", "b"))
    run = run_of(host, A, B)
    run.make_survey(lambda *_: None)
    host.incidents.done = {"a"}  # somebody else was quicker
    result = run.apply("r", lambda *_: None)
    assert (result.status, made(result), result.not_run) == ("changed", ["b"], 0)


def test_the_hint_of_a_failure_holds_for_this_host() -> None:
    host = FakeHost(wants("a"))
    host.incidents.fails = {"a": ("1", "docker: unknown or invalid runtime name: nvidia")}
    error = converged(host, A).error
    assert error is not None
    name = error.host
    assert (error.hint or "").startswith(
        f"{name} has no role docker: give it settings in the inventory; then"
    )
    assert (error.hint or "").endswith(f"else inv provision --hosts {name} --roles docker")


def test_what_a_step_prints_is_shown_without_what_is_known_to_be_secret() -> None:
    """A registry may send a login back, and a model may print its environment: under no name of a secret."""
    host = FakeHost(wants("a"))
    host.login = replace(host.login, variables=({"triton": {"env": {"X": "envSECRETplain22"}}},))
    host.incidents.prints = {"a": ["envSECRETplain22 is what it is"]}
    host.incidents.fails = {"a": ("7", "X was envSECRETplain22")}
    events: list[object] = []
    run = run_of(host, A)
    run.make_survey(lambda *_: None)
    result = run.apply("r", lambda _, event: events.append(event))
    assert isinstance(result.error, ChangeError)
    assert result.error.stderr == "X was (hidden)"
    assert "(hidden) is what it is" in str(events)
    assert "SECRET" not in f"{events}{result}"
