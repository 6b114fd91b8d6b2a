"""The end of a run, as the command line sees it: which run is meant, and what is said of each host."""

from __future__ import annotations

import pytest

from provision.connection import Connection
from provision.connection.login import Login
from provision.errors import ProbeError, RefusedError, UnreachableError, UsageError
from provision.probe import Output
from provision.run.gather import Answers
from provision.run.stop import Outcome, Underway, document, exit_code, require_id, underway

RUN = "20260102T030405Z-abcdef"
WORKS = Underway(RUN, "2026-01-02T03:04:06Z", 4, "packages:docker")


@pytest.mark.parametrize(
    ("asked", "under_way", "meant"),
    [
        (RUN, RUN, True),
        (RUN, f"{RUN}-1", True),
        (RUN, f"{RUN}-11", True),
        (RUN[:16], RUN, False),
        (f"{RUN}-1", RUN, False),
        (RUN, "20260102T030405Z-abcde0", False),
        (RUN, "", False),
        ("", RUN, False),
    ],
)
def test_a_run_is_meant_with_all_that_continues_it(asked: str, under_way: str, meant: bool) -> None:
    assert Underway(under_way).is_of(asked) is meant


def test_what_is_said_of_a_host_where_nothing_is_stopped() -> None:
    text = f"run {RUN} since 2026-01-02T03:04:06Z, step 4: packages:docker"
    assert WORKS.outcome("") == Outcome("running", text)
    assert Underway().outcome("") == Outcome("idle", "no run is under way")
    assert Underway(knows=True).outcome("x") == Outcome("over", "run x is over")
    assert WORKS.outcome("x") == Outcome("unknown", f"no run x is known here; {text}")


def test_the_document_and_the_exit_code() -> None:
    over, unknown = Outcome("over", "m"), Outcome("unknown", "m")
    lost = {"b": UnreachableError("b", "no route", hint="h")}
    hosts = document({"a": WORKS}, {"a": over}, lost)["hosts"]
    assert (hosts["a"]["status"], hosts["a"]["run"], hosts["a"]["step"]) == ("over", RUN, 4)
    assert hosts["b"] == {"status": "failed", "error": {"message": "no route", "hint": "h"}}
    assert exit_code({"a": over, "b": unknown}, {}) == 0
    assert exit_code({"a": unknown}, {}) == 1, "perhaps its id is misspelt"
    assert exit_code({"a": over}, lost) == 1


@pytest.mark.parametrize("run", ["a b", "../x", "-x", "x\n", "x;id", "é"])
def test_what_is_not_the_id_of_a_run_is_refused(run: str) -> None:
    with pytest.raises(UsageError, match="not the id of a run"):
        require_id(run)


@pytest.mark.parametrize("said", ["x", "x 2026", "a;b 2026-01-02T03:04:06Z ", "x 2026-01-02T03:04:06Z 1 !"])
def test_a_host_that_describes_no_run_is_at_fault(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object) -> Answers:
        return {"described-run": Output(0, f"{said}\n".encode()), "known-run": Output(1)}

    monkeypatch.setattr("provision.run.stop.gather", answer)
    with pytest.raises(ProbeError):
        underway(Connection(Login("h", "127.0.0.1", 22, "root")), RUN)


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object) -> Answers:
        return {"described-run": Output(0), "known-run": Output(1), "user": Output(0, b"1000\n")}

    monkeypatch.setattr("provision.run.stop.gather", answer)
    with pytest.raises(RefusedError, match=r"^h: logged in as ops, who is not root$") as caught:
        underway(Connection(Login("h", "127.0.0.1", 22, "ops")), RUN)
    assert caught.value.hint == "set ansible_become: true for the host, or ansible_user: root"
