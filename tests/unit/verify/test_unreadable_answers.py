"""Programs that print what nothing can read: a check says which program printed what, in a sentence."""

from __future__ import annotations

import re

import pytest

from provision.verify.outcome import Check
from tests.unit.verify.healthy_triton import INFO, INSPECT, serving, settings
from tests.unit.verify.played_host import Played, look, said

NESTED = "[" * 20_000
GARBAGE: dict[str, str | bytes] = {
    "nested": NESTED,
    "nothing": "",
    "words": "one two\nthree\n",
    "numbers": "1\n2, 3\n",
    "list": "[]\n",
    "mapping": "{}\n",
    "row": "a, b, c, d, e, f\n",
    "bytes": b"\xff\xfe\x00\n",
}
RAW = re.compile(r"[A-Z]\w*(Error|Exception): ")


def failures(played: Played) -> list[Check]:
    return [check for check in look(played, settings())[0].checks if check.verdict == "fail"]


@pytest.mark.parametrize("at", range(len(GARBAGE)))
def test_no_check_shows_an_exception(at: int) -> None:
    """Each answer of the healthy host is another one in its turn, and each kind has its share of them."""
    healthy, text = serving(settings()), list(GARBAGE.values())[at]
    for pattern in [r"^systemctl show ", *healthy.answers][at :: len(GARBAGE)]:
        found = failures(healthy.with_({pattern: said(text)}))
        raw = [(pattern, check.title, check.message) for check in found if RAW.match(check.message)]
        assert raw == []


def test_a_systemctl_that_prints_lines_of_its_own_is_named() -> None:
    answer = said("ActiveState=active\nhello\n")
    found = failures(serving(settings()).with_({r"^systemctl show \S*docker": answer}))
    says = "systemctl printed what cannot be read: ActiveState=active hello (ValueError, "
    (check,) = [check for check in found if check.name == "engine starts at boot"]
    assert check.message.startswith(says)
    assert check.hint == "on the host: type -a systemctl"


def test_a_docker_that_prints_brackets_is_named_once() -> None:
    found = failures(serving(settings()).with_({INFO: said(NESTED)}))
    assert [check.name for check in found] == ["engine answers"]
    assert found[0].message.startswith("dockerd does not answer: exit 0: [[[[")
    assert len(found[0].message) < 400


def test_a_container_that_docker_tells_otherwise_is_named() -> None:
    found = failures(serving(settings()).with_({INSPECT: said("[{}]")}))
    told = {check.message.partition(" (")[0] for check in found}
    assert told == {"docker printed what cannot be read: [{}]"}
