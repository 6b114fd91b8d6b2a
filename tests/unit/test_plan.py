"""Resources and states in, a plan out; plans compared and cut into stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from provision.errors import ProbeError, Refusal, RefusedError
from provision.plan.declared import Declared, declare, left_to_others
from provision.plan.plan import Plan, plan, previews, probes, refined, states
from provision.plan.stages import next_stage
from provision.probe import Output, Probe
from provision.resource import AnyResource, Change, Handler, Permission, Planned, Resource
from provision.roles import all_roles
from tests.unit.examples import H100, settings_of


@dataclass(frozen=True)
class Thing(Resource[str]):
    """A resource whose state is the action that it takes: empty for none, ``refuse`` for a refusal."""

    name: str
    kind: ClassVar[str] = "thing"

    @property
    def id(self) -> str:
        return self.name

    @classmethod
    def probe(cls, resources: Sequence[Thing]) -> Probe:
        return Probe("thing", " ".join(r.name for r in resources))

    @classmethod
    def states(cls, resources: Sequence[Thing], answer: Output) -> Mapping[str, str]:
        words = answer.out.split()
        if len(words) != len(resources):
            raise ValueError(f"{len(words)} answers")
        return {r.id: word for r, word in zip(resources, words, strict=True)}

    def bare(self) -> str:
        return "create"

    def change(self, state: str, planned: Planned) -> Change | None:  # noqa: ARG002
        if state == "refuse":
            raise Refusal(f"{self.name} cannot be", hint="try another")
        return Change(self.name, state, f"{state} {self.name}", f"do {self.name}", "false") if state else None


def planned(states_: Mapping[str, Any], *resources: AnyResource) -> Plan:
    return plan("h1", [Declared(f"role-{r.id}", r) for r in resources], states_)


def told(found: Plan) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Resource, debts made and debts settled of each change."""
    return [(change.resource, change.owes, change.settles) for change in found.changes]


A, B, C = Thing("a"), Thing("b"), Thing("c")
RELOAD = Handler("reload", on=("a", "b:create"), script="reload", covered_by=("c:start",))
NOTE = ("reload",)


def test_changes_come_in_the_order_written_each_with_its_role() -> None:
    found = planned({"a": "update", "b": "", "c": "create"}, C, B, A)
    assert [(c.resource, c.action, c.role) for c in found.changes] == [
        ("c", "create", "role-c"),
        ("a", "update", "role-a"),
    ]
    assert found.host == "h1"


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert planned({"a": "", "handler:reload": False}, A, RELOAD) == Plan("h1")


@pytest.mark.parametrize(
    ("found", "order", "expected"),
    [
        pytest.param(
            {"a": "update", "b": "", "c": ""},
            (A, B, RELOAD, C),
            [("a", NOTE, ()), ("handler:reload", (), NOTE)],
            id="one cause",
        ),
        pytest.param(
            {"a": "update", "b": "create", "c": ""},
            (A, B, RELOAD, C),
            [("a", NOTE, ()), ("b", NOTE, ()), ("handler:reload", (), NOTE)],
            id="two causes, one handler",
        ),
        pytest.param({"a": "", "b": "update", "c": ""}, (A, B, RELOAD), [("b", (), ())], id="another action"),
        pytest.param(
            {"a": "update", "b": "", "c": "start"},
            (A, C, RELOAD),
            [("a", NOTE, ()), ("c", (), NOTE)],
            id="covered by a start after the cause",
        ),
        pytest.param(
            {"a": "update", "b": "", "c": "start"},
            (C, A, RELOAD),
            [("c", (), ()), ("a", NOTE, ()), ("handler:reload", (), NOTE)],
            id="not covered by a start before the cause",
        ),
        pytest.param(
            {"a": "update", "b": "create", "c": "start"},
            (A, C, B, RELOAD),
            [("a", NOTE, ()), ("c", (), ()), ("b", NOTE, ()), ("handler:reload", (), NOTE)],
            id="a start between two causes covers neither",
        ),
        pytest.param(
            {"handler:reload": True, "a": "", "b": "", "c": ""},
            (A, RELOAD),
            [("handler:reload", (), NOTE)],
            id="owed from an earlier run",
        ),
        pytest.param(
            {"handler:reload": True, "a": "", "b": "", "c": "start"},
            (A, C, RELOAD),
            [("c", (), NOTE)],
            id="owed, and a start does the work",
        ),
        pytest.param(
            {"handler:reload": False, "a": "", "b": "", "c": "start"},
            (A, C, RELOAD),
            [("c", (), ())],
            id="nothing owed, nothing settled",
        ),
    ],
)
def test_debts(found: dict[str, Any], order: tuple[AnyResource, ...], expected: list[Any]) -> None:
    assert told(planned({"handler:reload": False, **found}, *order)) == expected


def test_a_handler_may_listen_to_another() -> None:
    second = Handler("second", on=("handler:reload",), script="")
    third = Handler("third", on=("a",), script="", covered_by=("handler:reload",))
    states_ = {"a": "update", "handler:reload": False, "handler:second": False, "handler:third": False}
    assert told(planned(states_, A, RELOAD, second, third)) == [
        ("a", ("reload", "third"), ()),
        ("handler:reload", ("second",), ("reload", "third")),
        ("handler:second", (), ("second",)),
    ]


def test_a_refusal_names_the_host() -> None:
    with pytest.raises(RefusedError, match="h1: b cannot be") as caught:
        planned({"a": "create", "b": "refuse"}, A, B)
    assert (caught.value.host, caught.value.hint) == ("h1", "try another")


def test_one_question_for_each_kind() -> None:
    declared = [Declared("x", A), Declared("x", RELOAD), Declared("y", B)]
    assert [probe.name for probe in probes(declared)] == ["thing", "handler"]
    assert probes(declared)[0].script == "a b"
    answers = {"thing": Output(0, b"update create"), "handler": Output(0, b"reload\n")}
    assert states("h1", declared, answers) == {"a": "update", "b": "create", "handler:reload": True}


def test_an_answer_that_cannot_be_understood_names_host_and_kind() -> None:
    stderr = b"one\ntwo\nthree\nfour\n"
    with pytest.raises(ProbeError) as caught:
        states("h1", [Declared("x", A)], {"thing": Output(1, b"", stderr)})
    assert str(caught.value) == "h1: cannot read the state of thing: 0 answers: two; three; four"


# --- comparing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fresh", "beyond"),
    [
        ({"a": "update", "b": "create"}, []),
        ({"a": "update"}, []),
        ({"a": "create"}, ["a"]),
        ({"a": "update", "b": "create", "c": "start"}, ["c"]),
    ],
)
def test_what_goes_beyond_an_approved_plan(fresh: dict[str, str], beyond: list[str]) -> None:
    approved = planned({"a": "update", "b": "create"}, A, B)
    later = planned(fresh, *(Thing(name) for name in fresh))
    assert [change.resource for change in later.beyond(approved)] == beyond


def test_bringing_up_what_a_reboot_stopped_goes_not_beyond_its_approval() -> None:
    approved = Plan("h", (step("a"),))
    later = Plan("h", (step("module", after_reboot=True), step("unit", after_reboot=True), step("b")))
    assert [change.resource for change in later.beyond(approved, rebooted=True)] == ["b"]
    assert [change.resource for change in later.beyond(approved)] == ["module", "unit", "b"]


# --- permissions and reboots ----------------------------------------------------------------------


def step(name: str, action: str = "update", **values: Any) -> Change:
    return Change(name, action, f"{action} {name}", "true", "true", reason=f"{name} is wrong", **values)


PACKAGES = step("packages")
ALLOWED = {
    name: Permission(name, f"{name} needed", f"--{name} allows it", first=name == "branch-change")
    for name in ("reboot", "branch-change", "docker-restart")
}
REBOOT = step(
    "reboot", needs=ALLOWED["reboot"], reboot=900, causes=("pin", "packages"), impact=("triton stops",)
)
SWAP = step("packages", needs=ALLOWED["branch-change"])
RESTART = step("restart", needs=ALLOWED["docker-restart"])
AGAIN = step("again", needs=ALLOWED["docker-restart"], causes=("pin",))


@pytest.mark.parametrize(
    ("changes", "granted", "done", "reboot", "stop"),
    [
        ("a b", "", "a b", "", ""),
        ("a reboot b", "reboot", "a reboot", "reboot", ""),
        ("a reboot b", "", "a", "", "reboot"),
        ("a pin packages reboot b", "", "a", "", "reboot"),
        ("a pin packages reboot b", "reboot", "a pin packages reboot", "reboot", ""),
        ("a swap b", "", "", "", "packages"),
        ("a swap reboot b", "reboot", "", "", "packages"),
        ("a swap reboot b", "branch-change", "a", "", "reboot"),
        ("a swap reboot b", "branch-change reboot", "a packages reboot", "reboot", ""),
        ("a restart b", "", "a", "", "restart"),
        ("a restart b", "docker-restart", "a restart b", "", ""),
        ("a restart reboot b", "docker-restart", "a restart", "", "reboot"),
        ("a restart reboot b", "reboot", "a", "", "restart"),
        ("reboot restart b", "reboot", "reboot", "reboot", ""),
        ("a pin reboot again b", "", "a", "", "reboot"),
        ("a pin again reboot b", "", "a", "", "again"),
        ("a restart swap b", "", "", "", "packages"),
    ],
)
def test_a_plan_is_carried_out_up_to_a_reboot_or_a_missing_permission(
    changes: str, granted: str, done: str, reboot: str, stop: str
) -> None:
    known = {"packages": PACKAGES, "reboot": REBOOT, "swap": SWAP, "restart": RESTART, "again": AGAIN}
    whole = Plan("h", tuple(known.get(n, step(n)) for n in changes.split()), granted=tuple(granted.split()))
    stage = next_stage(whole)
    assert [change.resource for change in stage.plan.changes] == done.split()
    assert (stage.reboot.resource if stage.reboot else "") == reboot
    assert (stage.stop.resource if stage.stop else "") == stop
    assert (stage.refusal() is None) == (not stop)


def test_a_missing_permission_is_a_sentence_with_its_reason_and_how_to_give_it() -> None:
    refusal = next_stage(Plan("h", (REBOOT,))).refusal()
    assert refusal is not None
    assert (refusal.message, refusal.stderr) == ("reboot needed: reboot is wrong", "triton stops")
    assert refusal.hint is not None
    assert "--reboot" in refusal.hint


class Asking(Thing):
    """Asks further questions before it is changed; refuses some answers."""

    def change(self, state: str, planned: Planned) -> Change | None:
        change = super().change(state, planned)
        return change and replace(change, preview=Probe("", "echo what", ("shell/files.sh",)))

    def refine(self, change: Change, answer: Output) -> Change:
        if answer.out == "no\n":
            raise Refusal("not like this", hint="otherwise")
        return replace(change, simulation=answer.out)

    def notes(self, state: str, planned: Planned) -> list[str]:  # noqa: ARG002
        return [f"{self.name} is {state}"] if state else []


def test_a_preview_is_asked_before_the_plan_is_shown() -> None:
    asking = Asking("a")
    found = planned({"a": "update", "b": "create"}, asking, B)
    assert found.notes == ("a is update",)
    assert previews(found) == [Probe("preview of a", "echo what", ("shell/files.sh",))]
    declared = [Declared("x", asking), Declared("x", B)]
    shown = refined(found, declared, {"preview of a": Output(0, b"so\n", b"")})
    assert [change.simulation for change in shown.changes] == ["so\n", ""]
    with pytest.raises(RefusedError, match="not like this"):
        refined(found, declared, {"preview of a": Output(0, b"no\n", b"")})


def test_what_a_run_owes_to_a_role_that_it_leaves_out_stays_owed_and_is_said() -> None:
    roles = {role.name: role for role in all_roles()}
    chosen = declare("h1", {roles["toolkit"]: settings_of("toolkit")}, H100)
    left_out = {roles[name]: settings_of(name) for name in ("docker", "triton")}
    left = left_to_others("h1", left_out, H100, chosen)
    restart = "handler:restart docker.service"
    assert restart in {item.resource.id for item in left}
    assert not [item for item in left if "wait for" in item.resource.id], "nobody has to come back for it"

    bare = {item.resource.id: item.resource.bare() for item in (*chosen, *left)}
    found = plan("h1", (*chosen, *left), bare)
    (installs,) = [change for change in found.changes if change.resource == "packages:toolkit"]
    assert "restart-docker.service" in installs.owes
    assert not [change for change in found.changes if change.role != "toolkit"]
    said = "owed, and not part of this run; inv provision --roles docker --hosts h1 does it"
    assert f"restart docker.service: {said}" in found.notes

    settled = {item.resource.id: item.resource.id == restart for item in left}
    assert plan("h1", left, settled).notes == (f"restart docker.service: {said}",), "an earlier run owes it"
    assert not plan("h1", left, dict.fromkeys(settled, False)).notes


def test_a_role_that_refuses_the_host_is_owed_nothing() -> None:
    roles, bare = {role.name: role for role in all_roles()}, replace(H100, gpus=())
    settings = {roles["driver"]: settings_of("driver")}
    with pytest.raises(RefusedError):
        declare("h1", settings, bare)
    assert left_to_others("h1", settings, bare, ()) == ()
