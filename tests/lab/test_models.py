"""Models on a lab host: what cannot serve is refused or named, and is never called healthy."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import Answer, inv
from tests.lab.test_instances import NAME, active, apply, instances, ready
from tests.lab.test_provision import converged, host, shell, wait_for

pytestmark = pytest.mark.lab

__all__ = ["converged"]

CONFIG = """name: "%s"
backend: "python"
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""
ADDS = """import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(one, "IN").as_numpy() for one in requests]
        tensors = [pb_utils.Tensor("OUT", values + numpy.float32(0.1)) for values in inputs]
        return [pb_utils.InferenceResponse(output_tensors=[tensor]) for tensor in tensors]
"""
UNIT = "triton@main.service"


def put(machine: LabHost, folder: str, name: str, config: str = CONFIG, code: str = ADDS) -> None:
    """A model in a repository on the host."""
    text = config.replace("%s", name)
    shell(
        machine,
        f"mkdir -p {folder}/{name}/1 && cat >{folder}/{name}/config.pbtxt <<'END'\n{text}\nEND\n"
        f"cat >{folder}/{name}/1/model.py <<'END'\n{code}\nEND",
    )


def canary(expected: float) -> dict[str, Any]:
    sent = {"name": "IN", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}
    return {
        "model": "adder",
        "inputs": [sent],
        "outputs": [{"name": "OUT", "data": [1.1, expected]}],
        "timeout": 5,
    }


def main(folder: Path, models: str, **changes: Any) -> Path:
    """An inventory whose instance has these models, and the default of ``expect``."""
    return instances(folder, main={"models": models, "expect": None, **changes})


def failing(source: Path) -> dict[str, str]:
    """The checks of verify that fail, with what they say."""
    answer = inv(
        "verify", "--hosts", NAME, "--roles", "triton", "--quick", "--json", inventory=source, timeout=900
    )
    checks = answer.host(NAME)["checks"]
    return {check["name"]: check["message"] for check in checks if check["verdict"] == "fail"}


def first_line(answer: Answer) -> str:
    """The first line of what the failed step printed."""
    return str(answer.host(NAME)["error"]["stderr"]).splitlines()[0]


@pytest.fixture
def machine(converged: Lab) -> LabHost:
    found = host(converged, NAME)
    shell(found, "rm -rf /srv/good /srv/wrong /srv/empty")
    put(found, "/srv/good", "adder")
    return found


@pytest.mark.campaign("instances")
def test_a_bad_configuration_is_refused_and_what_serves_goes_on(machine: LabHost, tmp_path: Path) -> None:
    good = main(tmp_path / "1", "/srv/good", canaries=[canary(2.6)])
    answer = apply(good)
    assert answer.code == 0, str(answer)
    started = shell(machine, "docker inspect --format '{{.State.StartedAt}}' triton-main")
    put(machine, "/srv/wrong", "adder", CONFIG.replace("backend:", "backend"))
    answer = apply(main(tmp_path / "2", "/srv/wrong", canaries=[canary(2.6)]))
    assert answer.code == 1, str(answer)
    says = f'{UNIT} cannot start: /srv/wrong/adder/config.pbtxt:2: Expected ":"'
    assert answer.host(NAME)["error"]["message"] == says
    assert shell(machine, "docker inspect --format '{{.State.StartedAt}}' triton-main") == started
    assert ready(machine)
    assert failing(good) == {}


@pytest.mark.campaign("instances", only=True)
def test_a_model_that_fails_ends_the_start_with_its_name_and_tritons_reason(
    machine: LabHost, tmp_path: Path
) -> None:
    put(machine, "/srv/wrong", "broken", code="raise ValueError('no weights')")
    began = time.monotonic()
    answer = apply(main(tmp_path / "1", "/srv/wrong"))
    assert answer.code == 1, str(answer)
    reason = "failed to load 'broken' version 1: Internal: ValueError: no weights"
    assert first_line(answer) == f"{UNIT} did not get ready: {reason}"
    assert time.monotonic() - began < 120
    assert machine.run(["systemctl", "is-active", UNIT]).stdout.strip() != "active"
    restarts = int(shell(machine, f"systemctl show -p NRestarts --value {UNIT}"))
    time.sleep(30)
    assert int(shell(machine, f"systemctl show -p NRestarts --value {UNIT}")) - restarts <= 3
    tolerant = ["--allow-gpu-metrics=false", "--exit-on-error=false", "--strict-readiness=false"]
    answer = apply(main(tmp_path / "2", "/srv/wrong", args=tolerant))
    assert first_line(answer).startswith(f"{UNIT} did not get ready: failed to load 'broken' version 1")
    answer = apply(main(tmp_path / "3", "/srv/wrong", args=tolerant, expect=[]))
    assert answer.code == 0, str(answer)
    answer = apply(main(tmp_path / "4", "/srv/wrong", args=["--no-such-flag"]))
    assert "unrecognized option '--no-such-flag'" in first_line(answer)
    assert apply(main(tmp_path / "5", "/srv/good")).code == 0


@pytest.mark.campaign("instances", only=True)
def test_what_does_not_serve_is_not_called_healthy(machine: LabHost, tmp_path: Path) -> None:
    shell(machine, "mkdir /srv/empty")
    empty = main(tmp_path / "1", "/srv/empty")
    assert apply(empty).code == 0, "the canary is served"
    assert "no model is in /srv/empty" in failing(empty)["models are ready"]
    answer = apply(main(tmp_path / "2", "/srv/empty", canary=False))
    assert first_line(answer).startswith(f"{UNIT} did not get ready: no model is in the repository")
    assert apply(main(tmp_path / "3", "/srv/empty", canary=False, expect=[])).code == 0
    good = main(tmp_path / "4", "/srv/good", canaries=[canary(2.6)])
    assert apply(good).code == 0
    shell(machine, "pkill -9 -f '[t]riton_python_backend_stub .*/models/adder/'")
    assert {"canaries answer as expected", "python models have their processes"} <= failing(good).keys()
    shell(machine, f"systemctl kill -s KILL {UNIT}")
    wait_for(lambda: active(machine, "main") == "active" and ready(machine), 90)
    assert failing(good).keys() <= {"unit does not restart"}


@pytest.mark.campaign("instances", only=True)
def test_another_answer_to_a_canary_fails_the_start_and_verification(
    machine: LabHost, tmp_path: Path
) -> None:
    good = main(tmp_path / "1", "/srv/good", rollback=True, canaries=[canary(2.6)])
    assert apply(good).code == 0
    says = re.compile(r"canary adder: output OUT\[1\] is 2\.5999999046\d+, expected 2\.7")
    wrong = main(tmp_path / "2", "/srv/good", rollback=True, canaries=[canary(2.7)])
    assert says.fullmatch(failing(wrong)["canaries answer as expected"])
    answer = apply(main(tmp_path / "3", "/srv/good", rollback=True, canaries=[canary(2.7)], env={"A": "b"}))
    told = first_line(answer).removeprefix(f"{UNIT} did not get ready: ")
    assert says.fullmatch(told.removesuffix("; the previous version serves again")), told
    assert told.endswith("; the previous version serves again")
    assert ready(machine)
    assert failing(good) == {}
