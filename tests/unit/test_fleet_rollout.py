"""In which batches a fleet is gone through, when it stops, and how the run ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import HostError, RenderError, UnreachableError, UsageError
from provision.plan.result import Result, Status
from provision.resource import Change
from provision.run.fleet import Rollout, _isolated, each, exit_code

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
        (("0%",), [1] * 10),
        (("100%",), [10]),
        (("200%",), [10]),
        (("50",), [10]),
        (("0",), [10]),
        (("2", "0"), [2, 8]),
    ],
)
def test_batches_are_those_of_ansibles_serial(serial: tuple[str, ...], sizes: list[int]) -> None:
    batches = Rollout(serial=serial).batches(NAMES)
    assert [len(batch) for batch in batches] == sizes
    assert [name for batch in batches for name in batch] == NAMES


@given(st.lists(st.integers(0, 300).map(str) | st.integers(0, 300).map("{}%".format)), st.integers(0, 40))
def test_every_host_is_in_one_batch(serial: list[str], count: int) -> None:
    names = [str(n) for n in range(count)]
    batches = Rollout(serial=tuple(serial)).batches(names)
    assert [name for batch in batches for name in batch] == names
    assert all(batches)


@pytest.mark.parametrize("size", ["", "x", "-1", "1.5", "10 %", "%", "1,2"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(UsageError, match=r"--serial .*: neither a number nor a percentage"):
        Rollout(serial=(size,)).batches(NAMES)


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


def test_work_is_done_for_all_and_told_in_order() -> None:
    refreshes: list[int] = []
    found = each({name: n for n, name in enumerate(NAMES)}, lambda n: n * n, 3, lambda: refreshes.append(1))
    assert list(found.items()) == [(name, n * n) for n, name in enumerate(NAMES)]
    assert refreshes
    assert each({}, str, 0, lambda: None) == {}


class Host:
    """What _isolated needs of a host."""

    class target:  # noqa: N801  # the name of a field
        name = "h1"

    @staticmethod
    def result(status: Status, *, error: HostError | None = None) -> Result:
        return Result("h1", status, error=error)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UnreachableError("h1", "no route"), "unreachable", "no route"),
        (HostError("h1", "disk full"), "failed", "disk full"),
        (ZeroDivisionError("division"), "failed", "unexpected ZeroDivisionError: division ("),
    ],
)
def test_what_goes_wrong_on_one_host_is_its_result(error: Exception, status: Status, message: str) -> None:
    host: Any = Host()

    def work() -> Result | None:
        raise error

    found = _isolated(host, work)
    assert found is not None
    assert found.error is not None
    assert (found.status, found.error.message[: len(message)]) == (status, message)


def test_a_fault_of_ours_or_of_a_template_ends_the_run_before_anything_is_changed() -> None:
    host: Any = Host()

    def work() -> Result | None:
        raise RenderError("templates/x.j2:1: 'y' is undefined")

    with pytest.raises(RenderError):
        _isolated(host, work)
