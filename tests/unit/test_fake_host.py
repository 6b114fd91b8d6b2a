"""The host that unit tests play tells the same as a real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from provision.plan.plan import Plan
from provision.plan.script import ACTIVE, GONE, Event, follow, launch, parse_event
from provision.probe import Output, Probe
from provision.resource import Change
from provision.run.gather import parse, script_of
from tests.unit.fake_host import FakeHost
from tests.unit.sandbox import RUN, SHELLS, Sandbox


def step(name: str, script: str) -> Change:
    mark = f"/run/{name}"
    return Change(name, "update", "", f"{script} && : >{mark}", f"[ -e {mark} ]", owes=("x",), settles=("y",))


def told(output: Output) -> list[Event]:
    """The events that a real host printed."""
    return [replace(parse_event(line), milliseconds=0) for line in output.out.splitlines()]


def played(host: FakeHost, script: str) -> tuple[list[Event], Output]:
    lines: list[str] = []
    output = host.run(script, timeout=1, on_line=lambda line: lines.append(line.decode()))
    return [replace(parse_event(line), milliseconds=0) for line in lines], output


def test_a_run_of_which_a_step_fails(tmp_path: Path) -> None:
    box = Sandbox.make(tmp_path, SHELLS[0])
    plan = Plan("h", (step("one", "true"), step("second", "sh -c 'echo no >&2; exit 7'")))
    host = FakeHost()
    host.incidents.fails = {"second": ("7", "no\n")}
    script = launch(plan, RUN)
    events, output = played(host, script)
    real = box.sh(script)
    assert (told(real), real.exit_code) == (events, output.exit_code)
    assert host.owed == box.owed
    first = len((box.spool / "events").read_bytes().split(b"\n")[0]) + 1
    assert told(box.sh(follow(RUN, first))) == played(host, follow(RUN, first))[0] == events[1:]
    assert box.sh(follow("unknown", 0)).exit_code == played(host, follow("unknown", 0))[1].exit_code == GONE


def test_a_run_that_is_under_way(tmp_path: Path) -> None:
    box = Sandbox.make(tmp_path, SHELLS[0])
    host = FakeHost()
    host.busy_with("theirs")
    lines: list[str] = []
    host.run(launch(Plan("h"), RUN), timeout=1, on_line=lambda line: lines.append(line.decode()))
    held = "mkdir -p /run/provision; exec 8>/run/provision/lock; echo theirs >&8; flock 8"
    assert box.sh(f"{held}\n{launch(Plan('h'), RUN)}").out.splitlines() == lines == ["busy theirs"]


def test_answers() -> None:
    host = FakeHost({"a": "update"})
    probes = [ACTIVE, Probe("thing", "things a 'b c'")]
    answers = parse(host.run(script_of(probes, "mark"), timeout=1), probes, "mark")
    assert answers == {ACTIVE.name: Output(0), "thing": Output(0, b"update\n\n")}
