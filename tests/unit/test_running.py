"""What instances run, beside what their files and images say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from provision.probe import Output
from provision.resource import UNKNOWN, Change, Planned
from provision.resources.dockerd import OfDockerd
from provision.roles.triton.role import TritonSettings, resources
from provision.roles.triton.running import RUNNING, RunningCommand, RunningImage
from provision.roles.triton.unit import NO_NEW_PRIVILEGES
from provision.shell import assembled
from tests.unit.examples import H100, IMAGE
from tests.unit.sandbox import SHELLS

UNIT = "triton@main.service"
DECLARED = {
    resource.id: resource
    for resource in resources(TritonSettings.model_validate({"instances": {"main": {"image": IMAGE}}}), H100)
}


def command() -> RunningCommand:
    found = DECLARED[f"command:{UNIT}"]
    assert isinstance(found, RunningCommand)
    return found


def image() -> RunningImage:
    found = DECLARED[f"image-of:{UNIT}"]
    assert isinstance(found, RunningImage)
    return found


def made(id_: str, action: str) -> Planned:
    return Planned((Change(id_, action, "", "", ""),))


def told(*words: str) -> bytes | None:
    cmdline = "".join(f"{word}\0" for word in words).encode()
    answer = f"{UNIT} 77\n\n==> /proc/77/cmdline <==\n".encode() + cmdline
    return RunningCommand.states([command()], Output(0, answer))[command().id]


def test_a_process_with_the_command_of_its_unit_is_right() -> None:
    assert command().change(told(*command().command), Planned()) is None
    none = RunningCommand.states([command()], Output(0, b"\n"))[command().id]
    assert none is None
    assert command().change(none, Planned()) is None


def test_a_server_takes_no_new_privileges_at_its_next_start() -> None:
    state = told(*(word for word in command().command if word != NO_NEW_PRIVILEGES))
    assert command().change(state, Planned()) is None
    note = f"{UNIT} runs without no_new_privileges, and takes it at its next start"
    assert list(command().notes(state, Planned())) == [note]
    assert list(command().notes(state, made(command().restart.id, "run"))) == []
    assert list(command().notes(told(*command().command), Planned())) == []
    assert list(command().notes(None, Planned())) == []


def test_a_word_that_is_no_text_is_shown() -> None:
    words = b"".join(f"{word}\0".encode() for word in command().command)
    change = command().change(words + b"--x=\xff\0\n", Planned())
    assert change is not None
    assert change.reason == "it runs with --x=\\xff"


def test_another_command_is_a_restart() -> None:
    others = [word.replace("--shm-size=1g", "--shm-size=2g") for word in command().command]
    change = command().change(told(*others), Planned())
    assert change is not None
    assert (change.action, change.reason) == ("restart", "it runs with --shm-size=2g")
    assert change.done.startswith(f"runs_command {UNIT} ")
    assert image().change(("a", "b"), Planned((change,))) is None, "one restart does both"


@pytest.mark.parametrize(
    "planned",
    [
        made(f"service:{UNIT}", "start"),
        made(f"service:{UNIT}", "await"),
        made(f"handler:restart {UNIT}", "run"),
    ],
)
def test_what_starts_anyway_is_not_restarted(planned: Planned) -> None:
    assert command().change(told("other"), planned) is None
    assert image().change(("a", "b"), planned) is None


PROCESSES = {"Titles": ["PID", "COMMAND"], "Processes": [["77", "tritonserver"]]}


def dockerd(container: object, ours: object, processes: object = PROCESSES) -> object:
    """The state by the answers of dockerd."""
    rows = (
        (container, 200 if container else 404),
        (processes, 200 if processes is PROCESSES else 500),
        (ours, 200 if ours else 404),
    )
    text = "".join(f"{json.dumps(document or {'message': 'no'})} {status}\n" for document, status in rows)
    return OfDockerd.states([image()], Output(0, text.encode()))[image().id]


RUNS = {"State": {"Running": True}, "Image": "sha256:a"}


def test_a_container_of_another_image_is_restarted() -> None:
    asked = OfDockerd.probe([image()]).script
    assert asked == (
        "ask_dockerd /containers/triton-main/json '/containers/triton-main/top?ps_args=-eo%20pid,args'"
        f" /images/{IMAGE}/json"
    )
    state = dockerd(RUNS, {"Id": "sha256:b"})
    change = image().change(state, Planned())  # type: ignore[arg-type]
    assert change is not None
    assert change.reason == f"it runs another image than {IMAGE}"
    assert image().change(("sha256:a", "sha256:a"), Planned()) is None


def test_a_container_that_somebody_has_paused_is_unpaused() -> None:
    state = dockerd(RUNS | {"State": {"Running": True, "Paused": True}}, {"Id": "sha256:a"})
    change = image().change(state, Planned())  # type: ignore[arg-type]
    assert change is not None
    assert (change.action, change.script) == ("unpause", "timeout -k 5 60 docker unpause triton-main")
    assert image().change(state, made(image().restart.id, "run")) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        f"task {'ab' * 32} not found: not found",
        "no running task found: not found",
        "container is not running",
    ],
)
def test_a_container_whose_process_is_gone_is_restarted_although_docker_calls_it_running(said: str) -> None:
    state = dockerd(RUNS, {"Id": "sha256:a"}, {"message": said})
    change = image().change(state, Planned())  # type: ignore[arg-type]
    assert change is not None
    assert (change.action, change.done) == ("restart", "has_process triton-main")
    assert change.reason == "its process is gone, and Docker does not know"
    assert image().change(state, made(image().restart.id, "run")) is None  # type: ignore[arg-type]


def test_a_host_without_ps_is_not_taken_for_one_without_processes() -> None:
    said = {"message": 'exec: "ps": executable file not found in $PATH'}
    assert dockerd(RUNS, {"Id": "sha256:a"}, said) == ("sha256:a", "sha256:a")


def test_a_pull_may_bring_another_image() -> None:
    state = dockerd(RUNS, None)
    pull = made(f"image:{IMAGE}", "pull")
    change = image().change(state, pull)  # type: ignore[arg-type]
    assert change is not None
    assert change.reason == "if the pull brings another image"


@pytest.mark.parametrize("container", [None, {"State": {"Running": False}, "Image": "sha256:a"}])
def test_a_unit_that_is_up_without_its_container_is_restarted(container: object) -> None:
    state = dockerd(container, {"Id": "sha256:b"})
    change = image().change(state, Planned())  # type: ignore[arg-type]
    assert change is not None
    assert change.reason == "its unit is up, and its container does not run"
    starts = made(f"service:{UNIT}", "start")
    assert image().change(state, starts) is None, "it is not up"  # type: ignore[arg-type]


def test_nothing_is_said_of_a_container_of_which_dockerd_did_not_tell() -> None:
    state = OfDockerd.states([image()], Output(1))[image().id]
    assert state is UNKNOWN
    assert image().change(UNKNOWN, Planned()) is None


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_are_read_without_those_of_drop_ins(shell: str, tmp_path: Path) -> None:
    groups, etc = tmp_path / "cgroup", tmp_path / "etc"
    etc.mkdir()
    with subprocess.Popen(["sleep", "60"]) as process:
        for name in ("a", "b", "c"):
            group = groups / f"system.slice/system-triton.slice/triton@{name}.service"
            group.mkdir(parents=True)
            (group / "cgroup.procs").write_text(f"{process.pid}\n" if name != "c" else "")
        for name, line in (("a", "LimitCORE=0"), ("b", "ExecStart=/bin/other")):
            (etc / f"triton@{name}.service.d").mkdir()
            (etc / f"triton@{name}.service.d/x.conf").write_text(f"[Service]\nExecStart=\n{line}\n")
        script = assembled(RUNNING) + "commands_of triton@a.service triton@b.service triton@c.service"
        script = script.replace("/sys/fs/cgroup", str(groups)).replace("/etc/systemd/system", str(etc))
        ran = subprocess.run([shell, "-c", script], capture_output=True, check=True)
        process.kill()
    expected = f"triton@a.service {process.pid}\n\n==> /proc/{process.pid}/cmdline <==\nsleep\0".encode()
    assert ran.stdout == expected + b"60\0"
    assert ran.stderr == b""
