"""A run is started once and followed to its end, however many connections that takes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from provision.errors import HostError, UnreachableError
from provision.plan.plan import Plan
from provision.plan.script import LONGEST, NOT_FOLLOWED, NOT_STARTED, Event
from provision.probe import Output
from provision.resource import Change
from provision.run.apply import GOOD, PATIENCE, RECONNECTS, BusyError, LostRunError, apply, attach
from tests.unit.fake_host import FakeHost

NAMES = ("first", "caf\u00e9 'x'", "third")
PLAN = Plan("h", tuple(Change(name, "update", f"update {name}", "true", "true") for name in NAMES))
EVENTS = [
    *(
        event
        for index, name in enumerate(NAMES)
        for event in (Event("start", index, resource=name), Event("ok", index, milliseconds=5))
    ),
    Event("end", status="ok"),
]


def applied(host: FakeHost) -> tuple[list[Event], list[Event]]:
    """What :func:`apply` returns, and what was told meanwhile."""
    told: list[Event] = []
    return apply(host, PLAN, "r", told.append, host.clock.sleep, clock=host.clock), told


def test_a_run_is_followed_to_its_end() -> None:
    host = FakeHost()
    assert applied(host) == (EVENTS, EVENTS)
    assert (host.connects, host.execs, host.timeouts, host.clock.slept) == (1, 1, [LONGEST + PATIENCE], [])


@pytest.mark.parametrize("cuts", [[lines] for lines in range(7)] + [[0] * 6])
def test_after_a_lost_connection_every_event_is_told_once(cuts: list[int]) -> None:
    host = FakeHost()
    host.incidents.cuts = list(cuts)
    assert applied(host) == (EVENTS, EVENTS)
    assert len(host.runs) == 1, "the run is not started again"
    assert host.connects == 1 + len(cuts)
    assert host.clock.slept == list(RECONNECTS[: len(cuts)])


@pytest.mark.parametrize("cuts", [[1] * 6, [2, 0, 1, 3], [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]])
def test_attempts_count_from_the_last_connection_that_told_something(cuts: list[int]) -> None:
    host = FakeHost()
    host.incidents.cuts = list(cuts)
    assert applied(host) == (EVENTS, EVENTS)
    waits = [RECONNECTS[next(n for n in range(7) if n == at or cuts[at - n])] for at in range(len(cuts))]
    assert host.clock.slept == waits


def test_attempts_count_from_the_last_connection_that_lasted() -> None:
    """A step may print nothing for long."""
    host = FakeHost()
    host.incidents.cuts = [1] + [0] * 12
    watched = host.run

    def lasting(*arguments: Any, **options: Any) -> Output:
        host.clock.now += GOOD + 1
        return watched(*arguments, **options)

    host.run = lasting  # type: ignore[method-assign]
    assert applied(host) == (EVENTS, EVENTS)
    assert host.clock.slept == [RECONNECTS[0]] * 13


def test_a_host_that_breaks_off_for_ever_is_watched_no_longer_than_a_run_may_take() -> None:
    host = FakeHost()

    def cut(*_: Any, on_line: Any, **__: Any) -> Output:
        on_line(b"out eA==")
        host.clock.now += 60
        raise UnreachableError("h", "the connection was lost")

    host.run = cut  # type: ignore[method-assign, assignment]
    with pytest.raises(UnreachableError, match="whether the run goes on there is not known"):
        apply(host, PLAN, "r", lambda _: None, host.clock.sleep, clock=host.clock)
    assert LONGEST < host.clock.now < LONGEST + 2 * PATIENCE


@pytest.mark.parametrize(
    ("said", "why", "hint"),
    [
        (b"cat: write error: No space left on device\n", "no space in /run/provision", "df -h /run"),
        (
            b"mkdir: Read-only file system\n",
            "mkdir: Read-only file system",
            "may root write in /run/provision",
        ),
        (
            b"the same run was here already, for another name\n",
            "the same run was here already, for another name",
            "two names of the inventory lead to this machine",
        ),
    ],
)
def test_a_run_that_was_not_started_says_why_and_that_nothing_was_changed(
    monkeypatch: pytest.MonkeyPatch, said: bytes, why: str, hint: str
) -> None:
    host = FakeHost()
    monkeypatch.setattr(host, "run", lambda *_, **__: Output(NOT_STARTED, b"", said))
    with pytest.raises(HostError) as caught:
        applied(host)
    assert caught.value.message == f"run r was not started, nothing was changed: {why}"
    assert hint in str(caught.value.hint)


def test_a_run_is_followed_again_where_what_followed_it_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost()
    host.incidents.cuts = [2]
    real = host.run

    def killed(*arguments: Any, **options: Any) -> Output:
        try:
            return real(*arguments, **options)
        except UnreachableError:
            return Output(NOT_FOLLOWED)

    monkeypatch.setattr(host, "run", killed)
    assert applied(host) == (EVENTS, EVENTS)


@pytest.mark.parametrize("cut", range(9))
def test_what_a_step_prints_is_told_and_not_counted(cut: int) -> None:
    """It is not among the events that the host keeps, so the place from which to follow on is before it."""
    host = FakeHost()
    host.incidents.prints = {NAMES[0]: ["Unpacking …", "Setting up …"]}
    host.incidents.cuts = [cut]
    events, told = applied(host)
    assert events == EVENTS
    assert [event for event in told if event.kind != "out"] == EVENTS
    assert [event.output for event in told if event.kind == "out"] == ["Unpacking …", "Setting up …"][
        : cut - 1 if cut else 0
    ]


def test_a_host_that_does_not_come_back_goes_on_with_its_run() -> None:
    host = FakeHost()
    host.incidents.cuts = [2] + [0] * len(RECONNECTS)
    with pytest.raises(
        UnreachableError, match=r"connection was lost.*; whether the run goes on there is not known"
    ) as caught:
        applied(host)
    assert "attaches to the run" in str(caught.value.hint)
    assert host.clock.slept == list(RECONNECTS)


def test_a_run_that_did_not_reach_the_host_is_started_later() -> None:
    """The session may be gone when the operator has read the plan."""
    host = FakeHost()
    host.incidents.silent = 3
    assert applied(host) == (EVENTS, EVENTS)
    assert (host.connects, host.execs, len(host.runs)) == (1, 1, 1)
    assert host.clock.slept == list(RECONNECTS[:3])
    host.close()
    host.incidents.silent = math.inf
    with pytest.raises(UnreachableError) as caught:
        applied(host)
    assert caught.value.message == "no route to host", "no word about a run that continues"


def test_a_run_that_the_host_no_longer_knows_is_lost() -> None:
    host = FakeHost()
    host.incidents.cuts, host.incidents.forgets = [2], True
    with pytest.raises(LostRunError, match="does not know run r any more: it was rebooted"):
        applied(host)


def test_a_run_without_a_result_says_what_the_host_said() -> None:
    host = FakeHost()
    host.incidents.error = "mkdir: No space left on device"
    with pytest.raises(
        HostError, match=r"run r ended without a result \(exit 1\): mkdir: No space"
    ) as caught:
        applied(host)
    assert "the disk is full" in str(caught.value.hint)
    assert not isinstance(caught.value, UnreachableError)


def test_another_run_that_is_under_way_is_named_and_nothing_is_started() -> None:
    host = FakeHost()
    host.busy_with("theirs")
    with pytest.raises(BusyError, match="run theirs is under way on the host") as caught:
        applied(host)
    assert caught.value.run == "theirs"
    assert host.runs == []
    host.busy_with("")
    with pytest.raises(BusyError, match="run of another operator is under way"):
        applied(host)


def test_somebody_elses_run_is_followed_from_its_first_event() -> None:
    host = FakeHost()
    host.busy_with("theirs")
    host.incidents.cuts = [1]
    told: list[Event] = []
    events = attach(host, "theirs", told.append, host.clock.sleep, clock=host.clock)
    assert (
        events == told == [Event("start", 0, resource="theirs"), Event("ok", 0, milliseconds=1), EVENTS[-1]]
    )
    with pytest.raises(LostRunError, match="run unknown"):
        attach(host, "unknown", told.append)
