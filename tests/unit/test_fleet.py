"""In which batches a fleet is gone through, when it stops, and how the run ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import HostError, Refusal, RenderError, UsageError
from provision.plan.plan import Plan
from provision.plan.result import Doing, Result, Status
from provision.plan.saved import SavedPlans, load, save
from provision.plan.script import Event
from provision.resource import AnyResource, Change
from provision.roles.driver.role import BRANCH_CHANGE
from provision.run.fleet import Fleet, Rollout, exit_code, inspect
from tests.unit.fake_host import FakeHost, Thing, target_of

NAMES = [f"h{n:02}" for n in range(10)]


@pytest.mark.parametrize(
    ("serial", "sizes"),
    [
        ((), [10]),
        (("1",), [1] * 10),
        (("3",), [3, 3, 3, 1]),
        (("1", "4"), [1, 4, 4, 1]),
        (("1", "10%", "50%"), [1, 1, 5, 3]),
        (("30%",), [3, 3, 3, 1]),
        (("39%",), [3, 3, 3, 1]),
        (("1%",), [1] * 10),
        (("100%",), [10]),
        (("50",), [10]),
        (("1%",), [1] * 10),
    ],
)
def test_batches_are_those_of_ansibles_serial(serial: tuple[str, ...], sizes: list[int]) -> None:
    batches = Rollout(serial=serial).batches(NAMES)
    assert [len(batch) for batch in batches] == sizes
    assert [name for batch in batches for name in batch] == NAMES


@given(st.lists(st.integers(1, 300).map(str) | st.integers(1, 100).map("{}%".format)), st.integers(0, 40))
def test_every_host_is_in_one_batch(serial: list[str], count: int) -> None:
    names = [str(n) for n in range(count)]
    batches = Rollout(serial=tuple(serial)).batches(names)
    assert [name for batch in batches for name in batch] == names
    assert all(batches)


@pytest.mark.parametrize("size", ["", "x", "-1", "1.5", "10 %", "%", "1,2", "9" * 5000])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(UsageError, match=r"--serial .*: neither a number of hosts nor a percentage of them"):
        Rollout(serial=(size,)).batches(NAMES)


@pytest.mark.parametrize("size", ["0", "0%", "00"])
def test_no_batch_is_empty(size: str) -> None:
    with pytest.raises(UsageError, match=f"--serial {size}: a batch has one host at least"):
        Rollout(serial=("1", size))


@pytest.mark.parametrize("size", ["101%", "150%"])
def test_no_share_is_more_than_all_hosts(size: str) -> None:
    with pytest.raises(UsageError, match=f"--serial {size}: there are no more hosts than 100%"):
        Rollout(serial=("1", size))
    with pytest.raises(UsageError, match=f"--max-failed {size}: there are no more hosts than 100%"):
        Rollout(max_failed=size)


@pytest.mark.parametrize(
    ("rollout", "tolerated"),
    [
        (Rollout(), 10),
        (Rollout(serial=("1",)), 0),
        (Rollout(max_failed="2"), 2),
        (Rollout(max_failed="0"), 0),
        (Rollout(max_failed="25%"), 2),
        (Rollout(max_failed="5%"), 0),
        (Rollout(serial=("1",), max_failed="100%"), 10),
    ],
)
def test_how_many_hosts_may_fail(rollout: Rollout, tolerated: int) -> None:
    assert rollout.tolerated(10) == tolerated


def test_what_is_no_threshold() -> None:
    with pytest.raises(UsageError, match="--max-failed some"):
        Rollout(max_failed="some").tolerated(10)


def result(status: Status, changes: int = 0) -> Result:
    return Result("h", status, changes=(Change("r", "a", "s", "x", "d"),) * changes)


@pytest.mark.parametrize(
    ("results", "check", "code"),
    [
        ([], False, 0),
        ([result("ok")], False, 0),
        ([result("ok")], True, 0),
        ([result("changed", 2)], False, 0),
        ([result("changed", 2)], True, 3),
        ([result("ok"), result("failed")], False, 1),
        ([result("ok"), result("unreachable")], False, 1),
        ([result("ok"), result("skipped")], False, 1),
        ([result("changed", 1), result("failed")], True, 1),
    ],
)
def test_exit_codes(results: list[Result], check: bool, code: int) -> None:
    assert exit_code(results, check=check) == code


# --- hosts ----------------------------------------------------------------------------------------


HANGING = threading.Event()
"""What ends the probes that hang."""


@pytest.fixture(autouse=True)
def hanging() -> Iterator[None]:
    HANGING.clear()
    yield
    HANGING.set()


def is_phase(event: Event | Doing | str, phase: str) -> bool:
    return isinstance(event, Doing) and event.phase == phase


@dataclass
class Hosts:
    """Hosts that are played, and a fleet of them.

    :ivar told: what was said about them.
    :ivar ends: the host whose end, whatever it is, ends the probes that hang.
    """

    hosts: Sequence[FakeHost]
    things: tuple[AnyResource, ...] = (Thing("a"),)
    told: list[tuple[str, Event | Doing | str]] = field(default_factory=list)
    ends: str = ""

    def fleet(self, rollout: Rollout = Rollout()) -> Fleet:  # noqa: B008  # frozen
        by_name = {host.login.host: host for host in self.hosts}
        return Fleet(
            [target_of(host, *self.things) for host in self.hosts],
            rollout,
            self.tell,
            connect=lambda login: by_name[login.host],
        )

    def tell(self, name: str, event: Event | Doing | str) -> None:
        self.told.append((name, event))
        if name == self.ends and isinstance(event, Doing) and event.phase in get_args(Status):
            HANGING.set()

    def at(self, name: str, phase: str) -> int:
        """When a host came to a phase, as a number that grows."""
        return self.told.index((name, next(e for h, e in self.told if h == name and is_phase(e, phase))))

    def phases(self, name: str) -> list[str]:
        return [event.phase for host, event in self.told if host == name and isinstance(event, Doing)]


def in_need(*names: str) -> list[FakeHost]:
    return [FakeHost({"a": "update"}, name) for name in names]


def statuses(fleet: Fleet) -> dict[str, str]:
    return {result.host: result.status for result in fleet.in_order()}


def test_hosts_are_planned_and_changed_over_one_connection_each() -> None:
    wrong, right = FakeHost({"a": "update"}, "h1"), FakeHost({"a": ""}, "h2")
    played = Hosts([wrong, right])
    with played.fleet() as fleet:
        plans = fleet.survey()
        assert {name: len(plan.changes) for name, plan in plans.items()} == {"h1": 1, "h2": 0}
        assert fleet.results == {}
        assert wrong.runs == []
        fleet.apply("r")
        assert statuses(fleet) == {"h1": "changed", "h2": "ok"}
        assert wrong.runs == [("r", ["a"])]
        assert (wrong.connects, right.connects) == (1, 1)
    assert played.phases("h1") == ["planning", "planned", "applying", "changed"]
    assert played.phases("h2") == ["planning", "planned", "ok"]


def test_connections_are_closed_after_their_batch_and_at_the_end() -> None:
    hosts = in_need("h1", "h2")
    fleet = Hosts(hosts).fleet(Rollout(serial=("1",)))
    with fleet:
        fleet.survey()
        assert [host.is_open for host in hosts] == [True, True]
        fleet.apply("r")
        assert [host.is_open for host in hosts] == [False, False]
        fleet.hosts["h1"].connection.open()
    assert not hosts[0].is_open


def test_without_a_run_the_plans_are_the_results() -> None:
    played = Hosts([FakeHost({"a": "update"}, "h1"), FakeHost({"a": ""}, "h2")])
    with played.fleet() as fleet:
        fleet.survey()
        fleet.planned()
    assert statuses(fleet) == {"h1": "changed", "h2": "ok"}
    assert [len(result.changes) for result in fleet.in_order()] == [1, 0]
    assert played.hosts[0].runs == []


@pytest.mark.parametrize(
    ("thing", "status", "message"),
    [
        (None, "unreachable", "no route to host"),
        (Thing("a", breaks=Refusal("a cannot be")), "failed", "a cannot be"),
        (Thing("a", breaks=HostError("h1", "disk full")), "failed", "disk full"),
        (Thing("a", breaks=RenderError("x.j2:1: 'y' is undefined")), "failed", "x.j2:1: 'y' is undefined"),
        (Thing("a", breaks=ZeroDivisionError("by 0")), "failed", "unexpected ZeroDivisionError: by 0 ("),
    ],
)
def test_what_goes_wrong_on_one_host_is_its_result(thing: Thing | None, status: str, message: str) -> None:
    bad, good = in_need("bad", "good")
    played = Hosts([bad, good])
    fleet = played.fleet()
    if thing is None:
        bad.incidents.silent = 1
    else:
        fleet.targets = [target_of(bad, thing), target_of(good)]
    with fleet:
        assert list(fleet.survey()) == ["good"]
        fleet.apply("r")
    assert statuses(fleet) == {"bad": status, "good": "changed"}
    error = fleet.results["bad"].error
    assert error is not None
    assert error.message.startswith(message)
    assert (bad.runs, good.runs) == ([], [("r", ["a"])])
    assert played.phases("bad") == ["planning", status]


def test_a_host_that_fails_during_its_run_stops_no_other() -> None:
    lost, failing, good = in_need("lost", "failing", "good")
    lost.incidents.error = "no space"
    failing.incidents.fails = {"a": ("1", "")}
    with Hosts([lost, failing, good]).fleet() as fleet:
        fleet.survey()
        fleet.apply("r")
    assert statuses(fleet) == {"lost": "failed", "failing": "failed", "good": "changed"}


@pytest.mark.parametrize(
    ("failing", "rollout", "last"),
    [
        (1, Rollout(serial=("1",)), "skipped"),
        (0, Rollout(serial=("1",)), "changed"),
        (1, Rollout(serial=("1",), max_failed="1"), "changed"),
        (2, Rollout(serial=("1",), max_failed="1"), "skipped"),
        (2, Rollout(serial=("1",), max_failed="50%"), "changed"),
        (2, Rollout(serial=("1",), max_failed="49%"), "skipped"),
        (3, Rollout(), "changed"),
        (3, Rollout(serial=("100%",)), "changed"),
    ],
)
def test_no_batch_begins_after_more_failures_than_are_tolerated(
    failing: int, rollout: Rollout, last: str
) -> None:
    hosts = in_need("h1", "h2", "h3", "h4")
    for host in hosts[:failing]:
        host.incidents.fails = {"a": ("1", "")}
    played = Hosts(hosts)
    with played.fleet(rollout) as fleet:
        fleet.survey()
        fleet.apply("r")
    assert statuses(fleet)["h4"] == last
    assert len(hosts[3].runs) == (last == "changed")
    assert played.phases("h4")[-1] == last


def test_hosts_that_could_not_be_planned_count_as_failed() -> None:
    hosts = in_need("h1", "h2")
    hosts[0].incidents.silent = 1
    with Hosts(hosts).fleet(Rollout(serial=("1",))) as fleet:
        fleet.survey()
        fleet.apply("r")
    assert statuses(fleet) == {"h1": "unreachable", "h2": "skipped"}


def test_a_host_of_a_later_batch_that_cannot_be_planned_holds_up_no_earlier_one() -> None:
    hosts = in_need("h1", "h2", "h3")
    hosts[1].incidents.silent = 1
    with Hosts(hosts).fleet(Rollout(serial=("1",))) as fleet:
        fleet.survey()
        fleet.apply("r")
    assert statuses(fleet) == {"h1": "changed", "h2": "unreachable", "h3": "skipped"}


def test_facts_of_those_that_answer_and_errors_of_those_that_do_not() -> None:
    hosts = {name: FakeHost(name=name) for name in ("h1", "h2")}
    hosts["h2"].incidents.silent = 1
    logins = [host.login for host in hosts.values()]
    facts, errors = inspect(logins, 2, lambda login: hosts[login.host])
    assert {name: found.facts.system for name, found in facts.items()} == {"h1": "debian 12"}
    assert {name: error.message for name, error in errors.items()} == {"h2": "no route to host"}
    assert not hosts["h1"].is_open


# --- a host that answers late ---------------------------------------------------------------------


def hanging_host(name: str, **wants: str) -> FakeHost:
    host = FakeHost(wants or {"a": "update"}, name)
    host.incidents.hangs = HANGING
    return host


def test_plans_are_shown_while_another_host_hangs() -> None:
    shown: list[list[str]] = []

    def show(plans: Mapping[str, Plan]) -> None:
        shown.append(list(plans))
        HANGING.set()

    with Hosts([*in_need("h1"), hanging_host("h2"), *in_need("h3")]).fleet() as fleet:
        assert list(fleet.survey(show)) == ["h1", "h2", "h3"]
    assert shown == [["h1", "h3"], ["h2"]]


def test_a_host_is_planned_shown_and_changed_while_another_one_hangs() -> None:
    slow, quick = hanging_host("slow"), *in_need("quick")
    played = Hosts([slow, quick], ends="quick")

    def show(plans: Mapping[str, Plan]) -> None:
        for name in plans:
            played.tell(name, "shown")

    with played.fleet() as fleet:
        fleet.apply("r", show)
    assert statuses(fleet) == {"slow": "changed", "quick": "changed"}
    assert played.at("quick", "changed") < played.at("slow", "planned")
    for name in ("slow", "quick"):
        assert played.at(name, "planned") < played.told.index((name, "shown")) < played.at(name, "applying")
    assert (slow.connects, quick.connects) == (1, 1)


def test_a_batch_is_planned_when_its_turn_comes() -> None:
    hosts = in_need("h1", "h2")
    played = Hosts(hosts)
    with played.fleet(Rollout(serial=("1",))) as fleet:
        fleet.apply("r")
    assert statuses(fleet) == {"h1": "changed", "h2": "changed"}
    assert played.at("h1", "changed") < played.at("h2", "planning")


def test_a_host_that_fails_late_stops_the_next_batch_and_not_its_own() -> None:
    late, quick, *others = [hanging_host("late"), *in_need("quick", "h3", "h4")]
    played = Hosts([late, quick, *others], ends="quick")
    fleet = played.fleet(Rollout(serial=("2",)))
    fleet.targets = [
        target_of(late, Thing("a", breaks=Refusal("no"))),
        *(target_of(host) for host in (quick, *others)),
    ]
    with fleet:
        fleet.apply("r")
    assert statuses(fleet) == {"late": "failed", "quick": "changed", "h3": "skipped", "h4": "skipped"}
    assert [host.connects for host in others] == [0, 0]


@pytest.mark.parametrize(
    ("rollout", "status"),
    [
        (Rollout(), "changed"),
        (Rollout(max_failed="1"), "changed"),
        (Rollout(max_failed="0"), "skipped"),
        (Rollout(serial=("2",)), "skipped"),
    ],
)
def test_a_host_that_answers_after_too_many_failures_is_not_started(rollout: Rollout, status: str) -> None:
    late, failing = hanging_host("late"), *in_need("failing")
    failing.incidents.fails = {"a": ("1", "")}
    with Hosts([late, failing], ends="failing").fleet(rollout) as fleet:
        fleet.apply("r")
    assert statuses(fleet) == {"late": status, "failing": "failed"}
    assert len(late.runs) == (status == "changed")


def test_a_host_that_answers_after_too_many_failures_may_have_nothing_to_do() -> None:
    late, failing = hanging_host("late", a=""), *in_need("failing")
    failing.incidents.fails = {"a": ("1", "")}
    with Hosts([late, failing], ends="failing").fleet(Rollout(max_failed="0")) as fleet:
        fleet.apply("r")
    assert statuses(fleet) == {"late": "ok", "failing": "failed"}


def test_an_interrupt_does_not_wait_for_a_host_that_hangs_and_starts_none() -> None:
    slow, quick = hanging_host("slow"), *in_need("quick")
    played = Hosts([slow, quick])
    fleet = played.fleet()

    def interrupt() -> None:
        if "changed" in played.phases("quick"):
            raise KeyboardInterrupt

    fleet.refresh = interrupt
    with pytest.raises(KeyboardInterrupt), fleet:
        fleet.apply("r")
    assert played.phases("slow") == ["planning"]
    HANGING.set()
    while "planned" not in played.phases("slow"):
        time.sleep(0.01)
    assert slow.runs == []
    assert played.phases("slow") == ["planning", "planned"]


# --- saved plans ----------------------------------------------------------------------------------

SWAP = (Thing("packages", needs=BRANCH_CHANGE),)
KEY = b"k" * 32


def saved_of(played: Hosts, *granted: str) -> SavedPlans:
    """The plans of hosts now, with these permissions, as they are read back from a file."""
    with played.fleet() as fleet:
        plans = {name: replace(plan, granted=granted) for name, plan in fleet.survey().items()}
        settings = {target.name: target.settings for target in fleet.targets}
    return load(save(plans, settings, KEY), "saved.json")


def applied(fleet: Fleet, approved: SavedPlans) -> list[str]:
    """Apply what was approved; the refusals."""
    with fleet:
        fleet.survey()
        refused = fleet.restrict_to(approved, KEY)
        fleet.apply("r")
    return list(map(str, refused.values()))


def test_a_saved_plan_gives_no_permission() -> None:
    host = FakeHost({"packages": "upgrade"})
    played = Hosts([host], SWAP)
    fleet = played.fleet()
    assert applied(fleet, saved_of(played, BRANCH_CHANGE.name)) == []
    assert statuses(fleet) == {"h": "failed"}
    error = fleet.results["h"].error
    assert error is not None
    assert error.message.startswith(BRANCH_CHANGE.refusal)
    assert host.runs == []


def test_a_saved_plan_is_applied_with_the_permissions_of_the_command_line() -> None:
    host = FakeHost({"packages": "upgrade"})
    played = Hosts([host], SWAP)
    fleet = played.fleet()
    fleet.targets = [target_of(host, *SWAP, granted=(BRANCH_CHANGE.name,))]
    assert applied(fleet, saved_of(played)) == []
    assert statuses(fleet) == {"h": "changed"}


@pytest.mark.parametrize("check", [False, True])
def test_a_host_whose_plan_is_another_one_by_now_is_refused_alone(check: bool) -> None:
    hosts = in_need("h1", "h2", "h3")
    played = Hosts(hosts)
    approved = saved_of(played)
    hosts[1].wants["a"] = "create"
    fleet = played.fleet()
    if check:
        with fleet:
            fleet.survey()
            fleet.restrict_to(approved, KEY)
            fleet.planned()
    else:
        assert applied(fleet, approved) == [
            "h2: 1 difference from the approved plan (the settings are the same): "
            "different: create a (approved: update a)"
        ]
    assert statuses(fleet) == {"h1": "changed", "h2": "failed", "h3": "changed"}
    assert fleet.results["h2"].changes == ()
    assert [len(host.runs) for host in hosts] == ([0, 0, 0] if check else [1, 0, 1])
    assert played.phases("h2")[-1] == "failed"


def test_a_host_that_has_nothing_left_to_do_is_as_approved() -> None:
    played = Hosts(in_need("h1", "h2"))
    approved = saved_of(played)
    played.hosts[1].wants["a"] = ""
    fleet = played.fleet()
    assert applied(fleet, approved) == []
    assert statuses(fleet) == {"h1": "changed", "h2": "ok"}


def test_a_saved_plan_goes_on_after_its_reboot() -> None:
    """What comes after it was approved with it, whatever the boot."""
    things = (Thing("kernel", reboot=60), Thing("a"), Thing("unit", after_reboot=True))
    host = FakeHost({"kernel": "reboot", "a": "update", "unit": ""})
    host.incidents.after_boot = [{"unit": "start"}]
    played = Hosts([host], things)
    fleet = played.fleet()
    assert applied(fleet, saved_of(played)) == []
    assert statuses(fleet) == {"h": "changed"}
    assert [steps for _, steps in host.runs] == [["kernel"], ["a", "unit"]]


def test_a_run_that_ended_early_leaves_another_plan_than_the_approved_one() -> None:
    """Part of it is done; what is left was not approved as a plan of its own."""
    host = FakeHost({"a": "update", "b": "update"})
    played = Hosts([host], (Thing("a"), Thing("b")))
    approved = saved_of(played)
    host.incidents.ends = "interrupted"
    first = played.fleet()
    assert applied(first, approved) == []
    assert statuses(first) == {"h": "failed"}
    assert applied(played.fleet(), approved) == [
        "h: 1 difference from the approved plan (the settings are the same): gone: update a"
    ]
