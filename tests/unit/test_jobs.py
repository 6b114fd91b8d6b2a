"""Answers of many jobs as they come: in groups, in order, and without waiting for what was interrupted."""

from __future__ import annotations

import threading

import pytest

from provision.run.jobs import Jobs, each

NAMES = [f"h{n:02}" for n in range(10)]


def test_work_is_done_for_all_and_told_in_order() -> None:
    refreshes: list[int] = []
    found = each({name: n for n, name in enumerate(NAMES)}, lambda n: n * n, 3, lambda: refreshes.append(1))
    assert list(found.items()) == [(name, n * n) for n, name in enumerate(NAMES)]
    assert refreshes
    assert each({}, str, 0, lambda: None) == {}


def test_answers_that_come_together_are_one_group_in_the_order_of_their_jobs() -> None:
    last = threading.Event()

    def second() -> str:
        last.wait(10)
        return "second"

    def third() -> str:
        last.set()
        return "third"

    with Jobs[str](3, lambda: None) as jobs:
        jobs.add("1", lambda: "first")
        jobs.add("2", second)
        jobs.add("3", third)
        assert [list(group.items()) for group in jobs.answers()] == [
            [("1", "first"), ("2", "second"), ("3", "third")]
        ]


def test_a_job_that_takes_long_holds_up_no_answer_and_others_can_follow_meanwhile() -> None:
    followed = threading.Event()
    found: list[dict[str, object]] = []
    with Jobs[object](2, lambda: None) as jobs:
        jobs.add("slow", lambda: followed.wait(10))
        jobs.add("quick", lambda: 1)
        for answers in jobs.answers():
            found.append(answers)
            if "quick" in answers:
                jobs.add("next", followed.set)
    assert found[0] == {"quick": 1}
    assert {name: answer for group in found[1:] for name, answer in group.items()} == {
        "slow": True,
        "next": None,
    }


def test_an_interrupt_waits_for_no_job_and_begins_no_other() -> None:
    end = threading.Event()
    begun: list[threading.Thread] = []

    def hang() -> None:
        begun.append(threading.current_thread())
        end.wait(30)

    def refresh() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Jobs[None](1, refresh) as jobs:
        jobs.add("hangs", hang)
        jobs.add("next", hang)
        list(jobs.answers())
    assert begun[0].is_alive()
    end.set()
    begun[0].join(10)
    assert len(begun) == 1
