"""Units of Triton servers: whose they are, what a start of them needs, and what it does to others."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provision.errors import Refusal
from provision.plan.declared import Declared
from provision.plan.plan import STEPS, plan
from provision.probe import Output
from provision.resource import ABSENT, AnyResource, Change, Missing, Planned
from provision.resources.file import FileState
from provision.resources.service import UnitState
from provision.roles.triton.instance import Instance
from provision.roles.triton.role import TritonSettings, resources
from provision.roles.triton.rollback import EnvironmentFile
from provision.roles.triton.server import (
    SERVE,
    Server,
    ServerHandler,
    ServerRestart,
    UnitFile,
)
from provision.roles.triton.unit import command_signal, models_signal
from provision.shell import assembled
from tests.unit.examples import H100, IMAGE
from tests.unit.sandbox import SHELLS, Sandbox

UNIT = "triton@main.service"
FILE = f"/etc/systemd/system/{UNIT}"
ENVIRONMENT = "file:/etc/triton/main.env"
UP = UnitState("active", "running", "enabled", fragment=FILE)


def declared(**changes: Any) -> dict[str, AnyResource]:
    settings = TritonSettings.model_validate({"instances": {"main": {"image": IMAGE, **changes}}})
    return {resource.id: resource for resource in resources(settings, H100)}


def unit_file(**changes: Any) -> UnitFile:
    found = declared(**changes)[f"file:{FILE}"]
    assert isinstance(found, UnitFile)
    return found


def server(**changes: Any) -> Server:
    found = declared(**changes)[f"service:{UNIT}"]
    assert isinstance(found, Server)
    return found


def restart() -> ServerRestart:
    found = declared()[f"handler:restart {UNIT}"]
    assert isinstance(found, ServerRestart)
    return found


def there(content: bytes, type_: str = "file") -> FileState:
    return FileState(type_, "0644", "root", "root", content)


@pytest.mark.parametrize(
    ("injection", "engine", "refused"),
    [
        ("cdi", "20.10.24+dfsg1", True),
        ("cdi", "26.1.5+dfsg1", False),
        ("gpus", "20.10.24", False),
        ("cdi", "", False),
    ],
)
def test_devices_of_cdi_take_a_docker_that_knows_them(injection: str, engine: str, refused: bool) -> None:
    change = unit_file(injection=injection).change(there(b"# Written by provision\n"), Planned())
    assert change is not None
    answer = Output(0, f"engine {engine}\n".encode() if engine else b"")
    if refused:
        with pytest.raises(Refusal, match="CDI takes Docker 25 or later"):
            unit_file(injection=injection).refine(change, answer)
    else:
        assert unit_file(injection=injection).refine(change, answer) == change


def test_a_server_that_comes_up_is_all_that_a_cut_restart_of_docker_needs() -> None:
    """The handlers of a run that was cut after Docker's restart are owed, and the unit starts by itself."""
    resources_ = [item for item in declared().values() if item.kind in ("service", "handler")]
    states: dict[str, Any] = {
        item.id: isinstance(item, ServerRestart) or item.id.startswith("handler:wait") for item in resources_
    }
    states |= {f"service:{UNIT}": UnitState("activating", "start-post", "enabled", fragment=FILE)}
    (change,) = plan("h", [Declared("triton", item) for item in resources_], states).changes
    assert (change.resource, change.action) == (f"service:{UNIT}", "await")
    assert set(change.settles) == {f"restart-{UNIT}", f"wait-for-{UNIT}"}


def made(id_: str, action: str = "update", *signals: str, role: str = "triton") -> Planned:
    return Planned((Change(id_, action, "", "", "", signals=signals, role=role),))


@pytest.mark.parametrize(
    ("changes", "restarts"),
    [
        ({"ready_timeout": 900}, False),
        ({"restart": "no"}, False),
        ({"exit_timeout": 60}, True),
        ({"ulimits": {}}, True),
        ({"no_new_privileges": False}, False),
        ({"gpus": [0]}, True),
        ({"args": ["--log-verbose=1"]}, True),
        ({"http_port": 8080}, True),
    ],
)
def test_only_what_the_container_sees_restarts_it(changes: dict[str, Any], restarts: bool) -> None:
    change = unit_file().change(there(unit_file(**changes).content), Planned())
    assert change is not None
    assert (command_signal(UNIT) in change.signals) is restarts
    assert (restart().change(False, Planned((change,))) is not None) is restarts


@pytest.mark.parametrize(
    ("old", "moves"),
    [({"models": "/srv/old"}, True), ({"args": ["--log-verbose=1"]}, False), (None, False)],
)
def test_another_model_repository_is_told_from_one_that_is_gone(
    old: dict[str, Any] | None, moves: bool
) -> None:
    state = ABSENT if old is None else there(unit_file(**old).content)
    change = unit_file().change(state, Planned())
    assert change is not None
    assert (models_signal(UNIT) in change.signals) is moves


def test_privileges_that_are_to_come_back_restart_it() -> None:
    change = unit_file(no_new_privileges=False).change(there(unit_file().content), Planned())
    assert change is not None
    assert command_signal(UNIT) in change.signals


@pytest.mark.parametrize(("content", "mode", "restarts"), [(None, "0644", False), (b"OLD=1\n", "0600", True)])
def test_the_mode_of_the_environment_restarts_nothing(
    content: bytes | None, mode: str, restarts: bool
) -> None:
    file = declared()["file:/etc/triton/main.env"]
    assert isinstance(file, EnvironmentFile)
    state = FileState("file", mode, "root", "root", file.content if content is None else content)
    change = file.change(state, Planned())
    assert change is not None
    assert (restart().change(False, Planned((change,))) is not None) is restarts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Description=NVIDIA Triton main", "Description=Triton"),
        ("TimeoutStartSec=330", "TimeoutStartSec=90"),
        ("TimeoutStopSec=60", "TimeoutStopSec=90"),
        ("RestartSec=10", "RestartSec=1"),
        ("ExecStartPost=", "ExecStartPost=-"),
        (' \\\n    "--publish=', ' "--publish='),
        ('"--log-format=ISO8601"', "--log-format=ISO8601"),
    ],
)
def test_a_unit_that_runs_the_same_command_restarts_nothing(old: str, new: str) -> None:
    """An earlier version may have written other lines around the same words."""
    text = unit_file().content.decode()
    assert old in text
    change = unit_file().change(there(text.replace(old, new).encode()), Planned())
    assert change is not None
    assert change.signals == ()


PREVIOUS = """\
# Written by provision; local changes belong into triton@main.service.d/*.conf
[Service]
ExecStart=/usr/bin/docker run --rm --init --pull=never --name=triton-main \\
    --label=provision.instance=main \\
    --runtime=nvidia "--env=NVIDIA_VISIBLE_DEVICES=all" \\
    --stop-timeout=45 --shm-size=1g \\
    --ulimit=memlock=-1 \\
    "--publish=127.0.0.1:8000:8000" \\
    "--publish=127.0.0.1:8001:8001" \\
    "--publish=127.0.0.1:8002:8002" \\
    "--volume=/srv/triton/main/models:/models:ro" \\
    "--volume=/usr/local/share/provision/triton:/opt/provision/models:ro" \\
    "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3" \\
    tritonserver --model-repository=/models \\
    --model-repository=/opt/provision/models \\
    --exit-timeout-secs=30 --log-format=ISO8601 "--id=main" \\
    "--load-model=provision_canary" \\
    "--model-control-mode=explicit"
"""
"""How the version before wrote the unit."""


def test_an_instance_of_the_version_before_goes_on_where_its_container_stays_the_same() -> None:
    same: dict[str, Any] = {"ulimits": {"memlock": -1}, "args": ["--model-control-mode=explicit"]}
    for more, signals in (({}, ()), ({"read_only": True}, (command_signal(UNIT),))):
        change = unit_file(**same, **more).change(there(PREVIOUS.encode()), Planned())
        assert change is not None
        assert change.signals == signals


def test_a_unit_file_that_is_gone_restarts_its_server() -> None:
    change = unit_file().change(ABSENT, Planned())
    assert change is not None
    assert restart().change(False, Planned((change,))) is not None


THEIRS = there(b"[Service]\nExecStart=/bin/own-triton\n")


def test_a_unit_that_somebody_else_wrote_is_not_overwritten() -> None:
    with pytest.raises(Refusal, match=f"{FILE} is not ours"):
        unit_file().change(THEIRS, made(ENVIRONMENT, "create"))


def test_a_unit_of_ours_that_was_overwritten_by_hand_is_brought_back() -> None:
    assert unit_file().change(THEIRS, Planned()) is not None
    assert unit_file().change(there(b""), made(ENVIRONMENT, "create")) is not None


def test_a_masked_instance_is_called_masked() -> None:
    with pytest.raises(Refusal, match=f"{UNIT} is masked on the host") as caught:
        unit_file().change(FileState("character special file", "0666", "root", "root"), Planned())
    assert caught.value.hint == f"if it may run again: systemctl unmask {UNIT}"


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (replace(UP, fragment="/etc/systemd/system/triton@.service"), True),
        (UnitState("inactive", "dead", "enabled", fragment="/usr/lib/systemd/system/triton@.service"), True),
        (
            UnitState("inactive", "dead", "disabled", fragment="/usr/lib/systemd/system/triton@.service"),
            False,
        ),
        (UP, False),
    ],
)
def test_a_template_of_somebody_else_that_runs_is_not_taken_over(state: UnitState, refused: bool) -> None:
    new = made(f"file:{FILE}", "create")
    if refused:
        with pytest.raises(Refusal, match="is not ours"):
            server().change(state, new)
    else:
        server().change(state, new)
    assert server().change(UP, Planned()) is None


LISTENS = "socket 0: 0100007F:1F40 00000000:0000 0A 00000000:00000000\n"
"""127.0.0.1:8000."""


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", ""),
        (LISTENS, "http_port 8000 is in use, by none of the instances"),
        (LISTENS.replace("0100007F", "00000000"), "http_port 8000 is in use"),
        (LISTENS.replace("0100007F", "0200000A"), ""),
        (LISTENS.replace(" 0A ", " 01 "), ""),
        (f"holds triton@old.service 8000 8001 8002\n{LISTENS}", ""),
        (f"silent\n{LISTENS}", ""),
        ("gpus GPU 7 is not among the GPUs of this host:\ngpus 0, GPU-aa\n", "GPU 7 is not among the GPUs"),
        ("named busybox:1 \n", "a container triton-main (busybox:1) is on the host, and is not ours"),
        ("named triton:1 main\n", ""),
    ],
)
def test_an_instance_that_cannot_start_is_refused_before_anything_changes(answer: str, says: str) -> None:
    change = unit_file().change(ABSENT, Planned())
    assert change is not None
    assert change.preview is not None
    if not says:
        assert unit_file().refine(change, Output(0, answer.encode())) == change
        return
    with pytest.raises(Refusal) as caught:
        unit_file().refine(change, Output(0, answer.encode()))
    assert says in caught.value.message
    assert caught.value.hint


def test_gpus_are_not_asked_for_while_the_driver_changes() -> None:
    change = unit_file(gpus=[0]).change(ABSENT, made("packages:driver", role="driver"))
    assert change is not None
    assert change.preview is not None
    assert change.preview.script == f"instance_needs {UNIT} none"


@pytest.mark.parametrize(
    ("answer", "impact"),
    [
        ("state inactive\n", ()),
        ("state active\n", (f"{UNIT} does not serve until it has loaded its models again",)),
        ("state activating\n", (f"{UNIT} begins again with loading its models",)),
        (
            "state inactive\nholder triton@old.service\n",
            (f"triton@old.service stops, as it holds a port of {UNIT}",),
        ),
    ],
)
def test_a_restart_says_what_it_does_to_users(answer: str, impact: tuple[str, ...]) -> None:
    change = restart().change(False, made(f"file:{FILE}", "update", command_signal(UNIT)))
    assert change is not None
    assert restart().refine(change, Output(0, answer.encode())).impact == impact


@pytest.mark.parametrize("state", [ABSENT, UnitState("failed", "failed", "enabled")])
def test_a_start_names_the_instances_that_stop(state: UnitState | Missing) -> None:
    change = server().change(state, Planned())
    assert change is not None
    assert change.script.endswith(f"serve start_unit {UNIT} 360 8000 8001 8002")
    told = server().refine(change, Output(0, b"state inactive\nholder triton@old.service\n"))
    assert told.impact == (f"triton@old.service stops, as it holds a port of {UNIT}",)


def test_a_stopped_instance_whose_port_somebody_took_is_refused() -> None:
    change = server().change(UnitState("inactive", "dead", "enabled"), Planned())
    assert change is not None
    with pytest.raises(Refusal, match="http_port 8000 is in use, by none of the instances"):
        server().refine(change, Output(0, f"state inactive\n{LISTENS}".encode()))
    holds = f"state inactive\nholder triton@old.service\nholds triton@old.service 8000\n{LISTENS}"
    assert server().refine(change, Output(0, holds.encode())).impact
    assert server().refine(change, Output(0, b"state active\n")).impact == ()


def test_a_stopped_instance_whose_name_somebody_took_is_refused() -> None:
    change = server().change(UnitState("failed", "failed", "enabled"), Planned())
    assert change is not None
    with pytest.raises(
        Refusal, match=r"a container triton-main \(busybox:1\) is on the host, and is not ours"
    ):
        server().refine(change, Output(0, b"state failed\nnamed busybox:1 \n"))
    assert server().refine(change, Output(0, b"state failed\nnamed triton:1 main\n"))


def test_a_gpu_that_the_host_does_not_have_is_refused() -> None:
    with pytest.raises(Refusal, match=f"{UNIT} wants GPU 7, and the host has 1"):
        unit_file(gpus=[0, 7]).change(ABSENT, Planned())
    assert unit_file(gpus=[0]).change(ABSENT, Planned()) is not None
    assert unit_file(gpus=["GPU-7"]).change(ABSENT, Planned()) is not None
    assert unit_file(gpus=[0, 7]).rendered(), "without a host nobody knows"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpus": ["GPU-a", "GPU-b"]}, "gpus names 2, and the host has 1 GPU"),
        ({"world_size": 2}, "world_size is 2, and the host has 1 GPU"),
        ({"gpus": ["MIG-a", "MIG-b"]}, ""),
        ({"world_size": 2, "gpus": ["MIG-a", "MIG-b"]}, ""),
    ],
)
def test_more_gpus_than_the_host_has_are_refused(changes: dict[str, Any], says: str) -> None:
    if not says:
        assert unit_file(**changes).change(ABSENT, Planned()) is not None
        return
    with pytest.raises(Refusal) as caught:
        unit_file(**changes).change(ABSENT, Planned())
    assert caught.value.message == f"{UNIT}: {says}"


@pytest.mark.parametrize("address", ["dead", "127.1", "1.2.3", "0127.0.0.1", "::g", "fe80::1%eth0", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        Instance(image=IMAGE, address=address)
    assert Instance(image=IMAGE, address="2001:db8::1")


def test_a_unit_waits_for_its_mounts_and_is_tried_for_ever() -> None:
    lines = unit_file(mounts=["/data:/data:ro", "cache:/cache"]).content.decode().splitlines()
    gate = "ExecStartPre=/usr/local/lib/provision/triton-mounts"
    assert f'{gate} "/srv/triton/main/models" "/data"' in lines
    assert "StartLimitIntervalSec=0" in lines
    assert "Requires=docker.service" not in lines
    assert "WantedBy=multi-user.target docker.service" in lines


PROGRAMS = """
docker() {
  case $1 in
    ps) echo abc ;;
    inspect) echo "triton@main.service 8000 8001 8002"; echo "triton@old.service 9000 9001 9002" ;;
  esac
}
dockerd_runs() { :; }
timeout() { shift 3; "$@"; }
xargs() { shift; "$@"; }
systemctl() { case $1 in show) ;; *) echo "$*" >>/run/calls ;; esac; }
event() { :; }
restart_unit() { echo "restart $1" >>/run/calls; return "$code"; }
"""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("code", "port", "calls"),
    [
        (0, 8000, ["restart triton@main.service"]),
        (0, 9000, ["stop -- triton@old.service", "restart triton@main.service"]),
        (
            1,
            9000,
            [
                "stop -- triton@old.service",
                "restart triton@main.service",
                "disable --quiet --now -- triton@main.service",
                "start --no-block -- triton@old.service",
            ],
        ),
        (
            1,
            9001,
            [
                "stop -- triton@old.service",
                "restart triton@main.service",
                "start --no-block -- triton@old.service",
            ],
        ),
    ],
)
def test_who_holds_a_port_stops_for_the_new_one_and_comes_back_if_that_fails(
    tmp_path: Path, shell: str, code: int, port: int, calls: list[str]
) -> None:
    """The unit of ``old`` still asks for port 9000, and no longer for 9001."""
    box = Sandbox.make(tmp_path, shell)
    units = tmp_path / "lib/units"
    units.mkdir()
    (units / "triton@old.service").write_text('    "--publish=127.0.0.1:9000:8000" \\\n')
    head = assembled(STEPS, SERVE).replace("/etc/systemd/system", "/var/lib/units")
    answer = box.sh(f"run=/run; code={code}\n{head}{PROGRAMS}serve restart_unit {UNIT} 9 {port}\n")
    assert answer.exit_code == code
    assert (tmp_path / "run/calls").read_text().splitlines() == calls


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("ages", "owed"),
    [
        ((300, 300, 300), False),
        ((100, 300, 300), True),
        ((300, 100, 300), True),
        ((300, 300, 100), True),
        ((300, None, None), False),
        ((None, 100, 100), False),
    ],
)
@pytest.mark.parametrize("kind", ["restart", "wait-for"])
def test_a_start_after_all_that_was_to_come_settles_what_was_owed(
    tmp_path: Path, shell: str, kind: str, ages: tuple[int | None, ...], owed: bool
) -> None:
    """The unit was started 200 seconds ago, by systemd itself; ages of its note, environment and canary."""
    box = Sandbox.make(tmp_path, shell)
    at = f"{kind}-{UNIT}"
    paths = (f"provision/owed/{at}", "envs/main.env", "canary/provision_canary/config.pbtxt")
    for path, age in zip(paths, ages, strict=True):
        if age is not None:
            file = tmp_path / "lib" / path
            file.parent.mkdir(parents=True)
            file.touch()
            os.utime(file, (time.time() - age,) * 2)
    began = int((float(Path("/proc/uptime").read_text().split()[0]) - 200) * 1e6)
    head = assembled(STEPS, SERVE).replace("/etc/triton", "/var/lib/envs")
    head = head.replace("/usr/local/share/provision/triton", "/var/lib/canary")
    head += f"systemctl() {{ echo {began}; }}\nmkdir -p $owed\n"
    probe = ServerHandler.probe([restart()])
    answer = box.sh(f"run=/run\n{head}{probe.script}")
    assert (answer.exit_code, answer.err) == (0, ""), answer
    waits = declared()[f"handler:wait for {UNIT}"]
    assert isinstance(waits, ServerHandler)
    states = ServerHandler.states([restart(), waits], answer)
    handler = restart() if kind == "restart" else waits
    assert states[handler.id] is owed
    assert sum(states.values()) == owed
    box.sh(f"run=/run\n{head}settle_debt {UNIT}")
    assert (at in box.owed) is (ages[0] is not None and (owed or kind == "wait-for"))


def test_who_waits_for_a_server_does_not_restart_it_for_a_debt_that_is_settled() -> None:
    (change,) = [
        waits.change(True, Planned())
        for waits in [declared()[f"handler:wait for {UNIT}"]]
        if isinstance(waits, ServerHandler)
    ]
    assert change is not None
    assert change.script == f"settle_debt {UNIT} && start_unit {UNIT} 360"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_an_instance_is_owed_goes_with_it(tmp_path: Path, shell: str) -> None:
    box = Sandbox.make(tmp_path, shell)
    (tmp_path / "lib/units").mkdir()
    (tmp_path / f"lib/units/{UNIT}").touch()
    folder = tmp_path / "lib/provision/owed"
    folder.mkdir(parents=True)
    for note in (f"restart-{UNIT}", f"wait-for-{UNIT}", "restart-triton@other.service"):
        (folder / note).touch()
    head = assembled(STEPS, SERVE).replace("/etc/systemd/system", "/var/lib/units")
    answer = box.sh(f"run=/run\n{head}systemctl() {{ :; }}\nretire_unit /var/lib/units/{UNIT}\n")
    assert answer.exit_code == 0, answer
    assert box.owed == {"restart-triton@other.service"}
