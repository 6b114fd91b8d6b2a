"""Hosts whose answers make no sense: an error of that host, and never a part of a command."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision.errors import HostError, ProbeError
from provision.plan.plan import Plan
from provision.plan.script import ACTIVE, Event, follow, launch, parse_event
from provision.probe import Output
from provision.run.apply import MOST_EVENTS, BusyError, apply, attach
from provision.run.fleet import Fleet, Rollout, inspect
from provision.run.host import facts_of, run_of
from tests.unit.fake_host import FakeHost, Thing, encoded, target_of
from tests.unit.fake_host import run_of as host_run

EVIL = "x; touch /tmp/evil"
RUN_IDS = [EVIL, "$(id)", "`id`", "a b", "../x", "-x", ".", "x\ny", "x'", 'x"', "x" * 101, "caf\u00e9", "a/b"]


@pytest.mark.parametrize("name", RUN_IDS)
def test_a_run_id_of_a_host_is_one_before_it_goes_into_a_script(name: str) -> None:
    with pytest.raises(ValueError, match="not the id of a run"):
        follow(name, 0)
    with pytest.raises(ValueError, match="not the id of a run"):
        launch(Plan("h"), name)
    with pytest.raises(ProbeError, match="not the id of a run"):
        run_of("h", {ACTIVE.name: Output(0, f"{name}\n".encode())})


def test_a_run_that_is_no_run_is_not_followed() -> None:
    host = FakeHost({"a": "update"})
    host.busy_with(EVIL)
    with pytest.raises(ProbeError, match=r"not the id of a run: 'x; touch /tmp/evil'"):
        host_run(host).make_survey(lambda *_: None)
    assert host.execs == 1, "nothing was sent after the answer"
    with pytest.raises(HostError, match="not the id of a run") as caught:
        apply(host, Plan("h"), "r", lambda _: None)
    assert not isinstance(caught.value, BusyError)
    assert host.execs == 2


@pytest.mark.parametrize("said", ["", "\n", "x; reboot\n", "cat: /proc: No such file\n", "8a3c\n8a3c\n"])
def test_a_boot_without_an_id_is_no_other_boot(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose answer was cut short has not been rebooted."""
    host = FakeHost()
    monkeypatch.setattr(host, "run", lambda *_, **__: Output(0, said.encode()))
    with pytest.raises(ProbeError, match="not the id of a boot"):
        host_run(host).booted()


# --- facts

TRUE_ANSWERS = {
    "os-release": b"ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
    "system": b"6.1.0-32-amd64\nx86_64\namd64\n8a3c\n",
    "pci": b"0000:18:00.0 0x030200 0x2330\n",
    "nvlink5": b"",
    "secure-boot": b"",
}


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {name: st.just(true) | st.binary(max_size=80) for name, true in TRUE_ANSWERS.items()}
    )
)
def test_facts_of_any_answer_are_facts_or_an_error_of_that_host(answers: dict[str, bytes]) -> None:
    try:
        facts = facts_of("h", {name: Output(0, data) for name, data in answers.items()})
    except ProbeError as error:
        assert str(error).isprintable()
    else:
        told = facts.os + facts.version + facts.codename + facts.kernel + facts.machine + facts.architecture
        assert f"{told}{facts.boot_id}".isprintable()
        assert not set(told) & set(" ;'\"$`\\/<>|&()")


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        (
            "system",
            b"6.1; reboot\nx86_64\namd64\n8a3c\n",
            "the kernel's release makes no sense: '6.1; r",
        ),
        ("system", b"6.1\nx86_64\namd64\n\n", "the boot's id makes no sense: ''"),
        ("os-release", b"ID=debian\nVERSION_ID=$(id)\n", "VERSION_ID of os-release makes no sense"),
        ("pci", b"0000:18:00.0 0x030200\n", "a PCI device makes no sense: '0000:18:00.0 0x030200'"),
        ("pci", b"0000:18:00.0 0x030200 0xzz\n", "a PCI device makes no sense"),
    ],
)
def test_what_becomes_part_of_a_command_is_matched_first(name: str, answer: bytes, said: str) -> None:
    answers = {key: Output(0, data) for key, data in TRUE_ANSWERS.items()} | {name: Output(0, answer)}
    with pytest.raises(ProbeError) as caught:
        facts_of("h", answers)
    assert said in str(caught.value)


class Babbler(FakeHost):
    """A host that answers everything with the same bytes, or fails with what no host should."""

    def __init__(self, said: bytes | Exception, name: str) -> None:
        super().__init__(name=name)
        self.said = said

    def run(self, *_: object, on_line: Callable[[bytes], None] | None = None, **__: object) -> Output:
        self.open()
        if isinstance(self.said, Exception):
            raise self.said
        if on_line is not None:
            for line in self.said.splitlines():
                on_line(line)
        return Output(0, self.said, self.said)


BABBLE = [
    b"",
    b"\0\xff garbage",
    b"busy $(id)\n",
    b"end ok\nend ok\n" * 9,
    TypeError("a defect"),
    IndexError("another"),
]


@pytest.mark.parametrize("said", BABBLE, ids=repr)
def test_facts_of_all_other_hosts_are_shown(said: bytes | Exception) -> None:
    hosts = {"bad": Babbler(said, "bad"), "good": FakeHost(name="good")}
    found, errors = inspect([host.login for host in hosts.values()], 2, lambda login: hosts[login.host])
    assert (list(found), list(errors)) == (["good"], ["bad"])
    assert str(errors["bad"]).startswith("bad: ")


@pytest.mark.parametrize("said", BABBLE, ids=repr)
def test_all_other_hosts_are_planned_and_changed(said: bytes | Exception) -> None:
    hosts = {"bad": Babbler(said, "bad"), "good": FakeHost({"a": "update"}, "good")}
    targets = [target_of(hosts["good"]), target_of(hosts["bad"], Thing("a"))]
    with Fleet(targets, Rollout(), lambda *_: None, connect=lambda login: hosts[login.host]) as all_hosts:
        all_hosts.survey()
        all_hosts.apply("r")
        statuses = {result.host: result.status for result in all_hosts.in_order()}
    assert statuses == {"good": "changed", "bad": "failed"}


# --- events


@settings(max_examples=500)
@given(st.text(max_size=60) | st.from_regex(r"(start|skip|ok|fail|say|out|end|busy) [-0-9a-zA-Z=+/ ]*"))
@example("ok -1 5")
@example("start 0 " + base64.b64encode(b"\xff\n").decode())
@example("start 0 x===")
@example("end rebooting ")
@example("ok 0 " + "9" * 5000)
def test_any_line_is_an_event_or_refused(line: str) -> None:
    try:
        event = parse_event(line)
    except ValueError:
        return
    assert event.index >= -1
    assert event.milliseconds >= 0


@pytest.mark.parametrize(
    "line", ["garbage", "ok 3 5", "fail 1 7 5", "start 99999 eA==", "start 0 !", "\x1b[2J", "busy $(reboot)"]
)
def test_an_event_that_makes_no_sense_is_an_error_of_that_host(line: str) -> None:
    host = Babbler(f"{line}\nend ok\n".encode(), "h")
    with pytest.raises(HostError, match="what the host says of its run makes no sense") as caught:
        apply(host, Plan("h"), "r", lambda _: None)
    assert str(caught.value).isprintable()
    assert caught.value.hint


def test_events_without_end_are_refused() -> None:
    told: list[Event] = []
    host = Babbler(f"say {encoded('x')}\n".encode() * (MOST_EVENTS + 1), "h")
    with pytest.raises(HostError, match="more than 20000 events"):
        attach(host, "r", told.append)
    assert len(told) == MOST_EVENTS
