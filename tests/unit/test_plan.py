"""Resources and states in, a plan out; plans compared, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.command import Output, Probe
from provision.errors import ProbeError, Refusal, RefusedError, UsageError
from provision.plan import Plan, Wanted, load, plan, probes, save, states
from provision.resources.base import Change, Planned, Resource
from provision.resources.handler import Handler


@dataclass(frozen=True)
class Thing(Resource):
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

    def change(self, state: str, planned: Planned) -> Change | None:  # noqa: ARG002
        if state == "refuse":
            raise Refusal(f"{self.name} cannot be", hint="try another")
        return Change(self.name, state, f"{state} {self.name}", f"do {self.name}", "false") if state else None


def planned(states_: Mapping[str, Any], *resources: Resource) -> Plan:
    return plan("h1", [Wanted(f"role-{r.id}", r) for r in resources], states_)


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
def test_debts(found: dict[str, Any], order: tuple[Resource, ...], expected: list[Any]) -> None:
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
    wanted = [Wanted("x", A), Wanted("x", RELOAD), Wanted("y", B)]
    assert [probe.name for probe in probes(wanted)] == ["thing", "handler"]
    assert probes(wanted)[0].script == "a b"
    answers = {"thing": Output(0, b"update create"), "handler": Output(0, b"reload\n")}
    assert states("h1", wanted, answers) == {"a": "update", "b": "create", "handler:reload": True}


def test_an_answer_that_cannot_be_understood_names_host_and_kind() -> None:
    stderr = b"one\ntwo\nthree\nfour\n"
    with pytest.raises(ProbeError) as caught:
        states("h1", [Wanted("x", A)], {"thing": Output(1, b"", stderr)})
    assert str(caught.value) == "h1: cannot read the state of thing: 0 answers\n  two\n  three\n  four"


# --- comparing ------------------------------------------------------------------------------------


def test_the_digest_is_equal_only_for_plans_that_do_the_same() -> None:
    one = planned({"a": "update"}, A)
    assert one.digest == planned({"a": "update"}, A).digest
    assert one.digest == Plan("another host", one.changes).digest
    for other in (
        {"script": "x"},
        {"done": "x"},
        {"guard": "x"},
        {"diff": "x"},
        {"owes": ("x",)},
        {"role": "x"},
    ):
        assert Plan("h1", (replace(one.changes[0], **other),)).digest != one.digest


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


# --- saving ---------------------------------------------------------------------------------------

TEXTS = st.text(st.characters())
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
CHANGES = st.builds(
    Change,
    **dict.fromkeys(
        ("resource", "action", "summary", "script", "done", "reason", "diff", "guard", "role"), TEXTS
    ),
    **dict.fromkeys(("owes", "settles", "signals"), NAMES),
)
PLANS = st.lists(
    st.builds(Plan, TEXTS, st.lists(CHANGES, max_size=4).map(tuple)), max_size=4, unique_by=lambda p: p.host
)


@settings(max_examples=40, deadline=None)
@given(plans=PLANS)
def test_a_saved_plan_is_read_back(plans: list[Plan]) -> None:
    assert load(save(plans), "f") == {found.host: found for found in plans}


ROW = asdict(Change("r", "a", "s", "x", "d"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "null",
        "7",
        "[]",
        "{}",
        '{"schema": 1}',
        '{"schema": 1, "plans": []}',
        '{"schema": 1, "plans": {"h": {}}}',
        '{"schema": 1, "plans": {"h": ""}}',
        '{"schema": 1, "plans": {"h": 7}}',
        '{"schema": 1, "plans": {"h": [{}]}}',
        '{"schema": 1, "plans": {"h": ["x"]}}',
        json.dumps({"schema": 1, "plans": {"h": [{**ROW, "script": 7}]}}),
        json.dumps({"schema": 1, "plans": {"h": [{**ROW, "script": ["x"]}]}}),
        json.dumps({"schema": 1, "plans": {"h": [{**ROW, "owes": "x"}]}}),
        json.dumps({"schema": 1, "plans": {"h": [{**ROW, "owes": [1]}]}}),
        "[" * 100_000,
    ],
)
def test_garbage_is_no_saved_plan(text: str) -> None:
    with pytest.raises(UsageError, match=r"^saved\.json: not a saved plan: .") as caught:
        load(text, "saved.json")
    assert caught.value.hint == "make one with: inv plan --out FILE"


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match="saved plan of schema 2, this version reads 1"):
        load('{"schema": 2, "plans": {}}', "saved.json")


@settings(max_examples=30, deadline=None)
@given(st.recursive(st.none() | st.integers() | TEXTS, lambda v: st.lists(v) | st.dictionaries(TEXTS, v)))
def test_any_other_document_is_refused_in_a_sentence(document: Any) -> None:
    with pytest.raises(UsageError):
        load(json.dumps({"schema": 1, "plans": {"h": [document]}}), "f")
