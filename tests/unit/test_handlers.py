"""Handlers: when they run, what they are owed for, and what makes them unnecessary."""

from __future__ import annotations

import pytest

from provision.probe import Output
from provision.resource import OWED, Change, Handler, Planned

RESTART = Handler(
    "restart a.service",
    on=("file:/a", "packages:p:install", "docker:restart"),
    script="restart_unit a.service 60",
    covered_by=("service:a.service:start",),
)


def change(resource: str, action: str = "update", *signals: str) -> Change:
    return Change(resource, action, "", "", "", signals=signals)


FILE = change("file:/a")
START = change("service:a.service", "start")


@pytest.mark.parametrize(
    ("earlier", "owed", "reason"),
    [
        ([], False, None),
        ([], True, "an earlier run ended before it"),
        ([FILE], False, "after file:/a"),
        ([FILE], True, "after file:/a"),
        ([change("file:/b")], False, None),
        ([change("packages:p", "install")], False, "after packages:p"),
        ([change("packages:p", "upgrade")], False, None),
        ([change("file:/json", "update", "docker:restart")], False, "after file:/json"),
        ([FILE, change("packages:p", "install")], False, "after file:/a, packages:p"),
        ([FILE, START], False, None),
        ([START, FILE], False, "after file:/a"),
        ([FILE, START, change("packages:p", "install")], False, "after file:/a, packages:p"),
        ([FILE, change("service:a.service", "enable")], False, "after file:/a"),
        ([START], True, None),
        ([START], False, None),
        ([START, FILE], True, "after file:/a"),
    ],
)
def test_when_a_handler_runs(earlier: list[Change], owed: bool, reason: str | None) -> None:
    found = RESTART.change(owed, Planned(tuple(earlier)))
    assert (found.reason if found else None) == reason


def test_what_a_handler_does() -> None:
    found = RESTART.change(True, Planned())
    assert found is not None
    assert (found.resource, found.action) == ("handler:restart a.service", "run")
    assert found.script == "restart_unit a.service 60"
    assert found.settles == ("restart-a.service",)
    assert found.done == "not_owed restart-a.service"


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("reload systemd", "reload-systemd"),
        ("restart triton@a_b.c-d.service", "restart-triton@a_b.c-d.service"),
        ("../../etc/passwd; rm", "..-..-etc-passwd-rm"),
    ],
)
def test_the_name_of_a_note_is_one_harmless_word(name: str, note: str) -> None:
    assert Handler(name, (), "").note == note


def test_notes_on_the_host_are_debts() -> None:
    other = Handler("restart b.service", on=(), script="")
    answer = Output(0, b"restart-a.service\nsomething-else\n")
    assert Handler.states([RESTART, other], answer) == {RESTART.id: True, other.id: False}
    assert Handler.states([RESTART], Output(0, b"")) == {RESTART.id: False}
    assert OWED in Handler.probe([RESTART]).script
