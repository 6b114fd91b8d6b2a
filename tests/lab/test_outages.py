"""What an operator leaves alone: instances that share a host, and what happens to them there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from provision.roles.triton import http
from tests.lab.cli import inv
from tests.lab.test_instances import NAME, OTHER_PORTS, active, apply, instances, machine, ready
from tests.lab.test_provision import converged, shell, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.campaign("instances", only=True)]

__all__ = ["converged", "machine"]

UNIT = "triton@main.service"
MODELS = "/srv/sleepers"
SLEEPER = """import time


class TritonPythonModel:
    def initialize(self, args):
        time.sleep(LOADING)

    def execute(self, requests):
        import triton_python_backend_utils as triton

        texts = [triton.get_input_tensor_by_name(request, "TEXT").as_numpy() for request in requests]
        time.sleep(float(texts[0][0]))
        tensors = [(triton.Tensor("TEXT", text), triton.Tensor("GPUS", text)) for text in texts]
        return [triton.InferenceResponse(output_tensors=list(pair)) for pair in tensors]
"""
"""A model that takes its time to load, and as many seconds to answer as it is told."""


@pytest.fixture
def usual(machine: LabHost, tmp_path: Path) -> Iterator[LabHost]:
    """A host that has the lab's own instance again in the end."""
    yield machine
    assert apply(instances(tmp_path / "usual", main={})).code == 0


def sleeper(machine: LabHost, loading: float, fails: str = "") -> dict[str, Any]:
    """Settings of an instance with that model alone."""
    canary, folder = "/usr/local/share/provision/triton/provision_canary/config.pbtxt", f"{MODELS}/sleeper"
    shell(machine, f"mkdir -p {folder}/1; sed s/provision_canary/sleeper/ {canary} >{folder}/config.pbtxt")
    text = SLEEPER.replace("LOADING", str(loading))
    if fails:
        text = text.replace("time.sleep(", f"raise RuntimeError({fails!r})  # (", 1)
    assert machine.run(["tee", f"{MODELS}/sleeper/1/model.py"], given=text).returncode == 0
    return {"models": MODELS}


def asked(machine: LabHost, model: str, text: str, port: int = 8000) -> dict[str, list[Any]]:
    """The outputs of a model."""
    request = http.request("127.0.0.1", port, f"/v2/models/{model}/infer", http.canary_request(text))[2]
    script = f'exec 3<>/dev/tcp/127.0.0.1/{port} && printf %s "$1" >&3 && cat <&3'
    answer = machine.run(["bash", "-c", script, "http", request], seconds=90).stdout
    return {output["name"]: output["data"] for output in json.loads(answer.splitlines()[-1])["outputs"]}


@contextmanager
def listener(machine: LabHost, port: int) -> Iterator[None]:
    """A program of somebody else on a port of 127.0.0.1."""
    # systemd would take $name for a variable of its own. An ended connection keeps a port for a while.
    options = f'Listen => 1, ReuseAddr => 1, LocalAddr => "127.0.0.1:{port}"'
    listens = f"@s = IO::Socket::INET->new({options}) or die; sleep 900"
    shell(machine, f"systemd-run --quiet --collect --unit=listener perl -MIO::Socket::INET -e '{listens}'")
    wait_for(lambda: machine.run(["bash", "-c", f": </dev/tcp/127.0.0.1/{port}"]).returncode == 0)
    try:
        yield
    finally:
        shell(machine, "systemctl stop listener.service")


def journal(machine: LabHost, since: str) -> str:
    return shell(machine, f"journalctl --no-pager -o cat -u {UNIT} --since @{since}")


def now(machine: LabHost) -> str:
    return shell(machine, "date +%s").strip()


def shown(machine: LabHost, what: str) -> str:
    return shell(machine, f"systemctl show --property {what} --value {UNIT}").strip()


def killed(machine: LabHost, pattern: str) -> None:
    shell(machine, f"kill -9 $(pgrep -f '{pattern}')")


def test_two_instances_have_a_gpu_each_and_serve_again_after_a_reboot(usual: LabHost, tmp_path: Path) -> None:
    uuids = shell(usual, "nvidia-smi --query-gpu=uuid --format=csv,noheader").split()
    main, second = {"gpus": [0]}, {"gpus": [uuids[1]], **OTHER_PORTS}
    source = instances(tmp_path / "1", main=main, second=second)
    answer = apply(source)
    assert answer.code == 0, str(answer)

    def serve() -> None:
        for port, uuid in zip((8000, 9000), uuids, strict=True):
            assert asked(usual, "provision_canary", "x", port) == {"TEXT": ["x"], "GPUS": [uuid]}
        proof = inv("verify", "--hosts", NAME, "--roles", "triton", inventory=source)
        assert proof.code == 0, str(proof)
        assert apply(source).host(NAME)["changes"] == []

    serve()
    boot = usual.boot_id()
    usual.run(["systemctl", "reboot"])
    usual.wait(after=boot)
    wait_for(lambda: ready(usual, 8000) and ready(usual, 9000), 120)
    serve()


def test_a_port_that_somebody_else_has_is_refused_or_named(usual: LabHost, tmp_path: Path) -> None:
    for number, (setting, port) in enumerate(OTHER_PORTS.items()):
        with listener(usual, port):
            answer = apply(instances(tmp_path / str(number), main={}, second=OTHER_PORTS))
        assert answer.code == 1, str(answer)
        assert f"triton@second.service cannot start: {setting} {port} is in use, by none of" in str(answer)
    both = apply(instances(tmp_path / "both", main={}, second={**OTHER_PORTS, "grpc_port": 8002}))
    assert both.code == 2, str(both)
    assert "port 8002 is both main.metrics_port and second.grpc_port" in str(both)
    shell(usual, f"systemctl stop {UNIT}")
    since = now(usual)
    with listener(usual, 8001):
        usual.run(["systemctl", "start", UNIT])
        assert active(usual, "main") != "active"
        said = journal(usual, since)
        assert "127.0.0.1:8001" in said
        assert "address already in use" in said
    wait_for(lambda: ready(usual), 60)


def test_a_model_that_fails_is_told_in_seconds_and_tried_again_in_peace(
    usual: LabHost, tmp_path: Path
) -> None:
    bad = sleeper(usual, 0, fails="no such engine")
    answer = apply(instances(tmp_path / "1", main=bad))
    assert answer.code == 1, str(answer)
    assert "no such engine" in str(answer)
    shell(usual, f"systemctl stop {UNIT}")
    began = time.monotonic()
    assert usual.run(["systemctl", "start", UNIT]).returncode == 1
    assert time.monotonic() - began < 20
    before = int(shown(usual, "NRestarts"))
    time.sleep(30)
    assert int(shown(usual, "NRestarts")) - before <= 3


def test_a_slow_model_is_waited_for_and_its_load_can_be_stopped(usual: LabHost, tmp_path: Path) -> None:
    slow = sleeper(usual, 30)
    began = time.monotonic()
    answer = apply(instances(tmp_path / "1", main=slow))
    assert answer.code == 0, str(answer)
    assert time.monotonic() - began >= 30
    assert ready(usual)
    shell(usual, f"systemctl restart --no-block {UNIT}")
    wait_for(lambda: shown(usual, "SubState") == "start-post")
    time.sleep(5)
    began = time.monotonic()
    shell(usual, f"systemctl stop {UNIT}")
    assert time.monotonic() - began < 15
    assert active(usual, "main") == "inactive", "stopped is not failed"
    assert shell(usual, "docker ps --all --quiet") == ""


def test_a_request_of_20_seconds_is_answered_while_its_server_stops(usual: LabHost, tmp_path: Path) -> None:
    assert apply(instances(tmp_path / "1", main=sleeper(usual, 0))).code == 0
    shell(usual, f"systemd-run --quiet --on-active=2 systemctl stop {UNIT}")
    assert asked(usual, "sleeper", "20")["TEXT"] == ["20"]
    wait_for(lambda: active(usual, "main") == "inactive")
    assert not ready(usual)


def test_whatever_is_killed_comes_back(usual: LabHost) -> None:
    for pattern, patience in (
        ("^tritonserver .*--id=main", 40),
        ("^/usr/bin/docker run .*--name=triton-main", 60),
        ("^/usr/sbin/dockerd", 60),
    ):
        wait_for(lambda: active(usual, "main") == "active" and ready(usual), 60)
        before = shown(usual, "ExecMainStartTimestampMonotonic")
        since = now(usual)
        killed(usual, pattern)
        wait_for(lambda before=before: shown(usual, "ExecMainStartTimestampMonotonic") != before, patience)  # type: ignore[misc]
        wait_for(lambda: active(usual, "main") == "active" and ready(usual), 60)
        assert "Main process exited" in journal(usual, since)
        assert len(shell(usual, "docker ps --quiet --filter name=triton-main").split()) == 1
        assert inv("plan", "--hosts", NAME).code == 0
