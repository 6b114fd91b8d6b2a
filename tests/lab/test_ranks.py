"""TensorRT-LLM's ranks: a real mpirun, real tritonservers, and an engine that does no more than join MPI."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from lab.registry import REPOSITORY
from lab.triton_image import NEWER
from provision.roles.triton import http
from provision.roles.triton.instance import Instance
from provision.roles.triton.launch import RANK_MODEL, server
from tests.lab.cli import Answer, inv, lab_inventory
from tests.lab.test_instances import NAME, active, apply, instances, machine, ready
from tests.lab.test_provision import converged, shell, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.campaign("instances", only=True)]

__all__ = ["converged", "machine"]

ENGINE = Path(__file__).resolve().parents[2] / "lab/ranks"
MODELS = "/srv/ranks"
GPUS = 2
EXIT_TIMEOUT = 4
LEADER: dict[str, Any] = {"world_size": 2}
ORCHESTRATOR: dict[str, Any] = {
    "mpi": "orchestrator",
    # It and its ranks are three, and the machine may have fewer cores.
    "env": {"OMPI_MCA_rmaps_base_oversubscribe": "1"},
}


@pytest.fixture(scope="module")
def settings(converged: Lab) -> dict[str, Any]:
    """Of an instance with an engine."""
    converged.offer(NEWER)
    return {
        "image": f"{converged.layout.registry}/{REPOSITORY}:{NEWER.tags[1]}",
        "models": MODELS,
        "expect": [RANK_MODEL],
        "exit_timeout": EXIT_TIMEOUT,
        "ready_timeout": 60,
    }


@pytest.fixture
def engine(machine: LabHost, tmp_path: Path) -> Iterator[None]:
    """The engine on the host; the lab's own instance serves again in the end."""
    for file in (file for file in ENGINE.rglob("*") if file.suffix in {".py", ".pbtxt"}):
        there = f"{MODELS}/{file.relative_to(ENGINE)}"
        write = ["sh", "-c", f"mkdir -p {Path(there).parent} && cat >{there}"]
        assert machine.run(write, given=file.read_text()).returncode == 0
    yield
    assert apply(instances(tmp_path / "last", main={})).code == 0


def ranks(machine: LabHost) -> list[dict[str, Any]]:
    """What each rank found, in their order."""
    left = shell(machine, "docker exec triton-main sh -c 'cat /tmp/rank-*.json'")
    found = [json.loads(one) for one in left.replace("}{", "}\n{").splitlines()]
    return sorted(found, key=lambda one: int(one["rank"]))


def asked(machine: LabHost, seconds: float = 0) -> Any:
    """The answer of the engine, that many seconds later."""
    _, _, text = http.request(
        "127.0.0.1", 8000, f"/v2/models/{RANK_MODEL}/infer", http.canary_request(str(seconds))
    )
    script = 'exec 3<>/dev/tcp/127.0.0.1/8000 && printf %s "$1" >&3 && cat <&3'
    answer = machine.run(["bash", "-c", script, "http", text], seconds=60).stdout
    return json.loads(json.loads(answer.splitlines()[-1])["outputs"][0]["data"][0])


def processes(machine: LabHost) -> list[str]:
    """What runs of an instance, in the container or out of it."""
    shown = shell(machine, "ps -eo args --no-headers").splitlines()
    return [
        line
        for line in shown
        if line.startswith(("mpirun", "tritonserver", "/opt/tritonserver", "python3 /models"))
    ]


def commands(settings: dict[str, Any]) -> list[list[str]]:
    """The command of each rank's server."""
    words = server("main", Instance(**settings), GPUS)
    starts = [at for at, word in enumerate(words) if word == "tritonserver"]
    return [words[at : (words.index(":", at) if ":" in words[at:] else None)] for at in starts]


def verified(source: Path) -> Answer:
    return inv("verify", "--hosts", NAME, "--roles", "triton", inventory=source)


def stopped(machine: LabHost) -> None:
    """A stop ends before its unit's patience does; nothing is left after it, and nothing has failed."""
    began = time.monotonic()
    shell(machine, "systemctl stop triton@main.service")
    assert time.monotonic() - began < 2 * EXIT_TIMEOUT + 30
    assert active(machine, "main") == "inactive", "killed by Docker, it has failed"
    assert processes(machine) == []
    assert shell(machine, "docker ps --all --quiet") == ""


@pytest.mark.usefixtures("engine")
def test_a_leader_has_its_ranks_and_they_live_and_end_together(
    machine: LabHost, settings: dict[str, Any], tmp_path: Path
) -> None:
    given = lab_inventory()["gpu-nodes"]["vars"]["triton"]["instances"]["main"] | settings | LEADER
    source = instances(tmp_path / "1", main=given)
    answer = apply(source)
    assert answer.code == 0, str(answer)
    found = ranks(machine)
    assert [one["server"] for one in found] == commands(given)
    for number, one in enumerate(found):
        assert (one["rank"], one["size"], one["pids"]) == (number, 2, [other["pid"] for other in found])
        assert (
            one["environment"].items()
            >= {"OMPI_COMM_WORLD_RANK": str(number), "OMPI_COMM_WORLD_SIZE": "2"}.items()
        )
        assert one["cores"] == int(shell(machine, "nproc"))
    assert asked(machine) == found[0]
    proof = verified(source)
    assert proof.code == 0, str(proof)
    assert apply(source).host(NAME)["changes"] == []

    last = shell(machine, "pgrep -f '^tritonserver .*--allow-http=false'")
    since = shell(machine, "date +%s").strip()
    shell(machine, f"kill -9 {last}")
    restarts = ["systemctl", "show", "-p", "NRestarts", "--value", "triton@main.service"]
    wait_for(lambda: machine.run(restarts).stdout.strip() == "1", 2 * (EXIT_TIMEOUT + 5) + 20)
    journal = shell(machine, f"journalctl --no-pager -o cat -u triton@main.service --since @{since}")
    assert "mpirun noticed that process rank 1 with PID" in journal
    assert "exited on signal 9 (Killed)" in journal
    assert "Failed with result 'exit-code'" in journal
    wait_for(lambda: active(machine, "main") == "active")
    assert asked(machine)["size"] == 2
    stopped(machine)


@pytest.mark.usefixtures("engine")
def test_a_request_in_flight_is_answered_before_ranks_end(
    machine: LabHost, settings: dict[str, Any], tmp_path: Path
) -> None:
    answer = apply(instances(tmp_path / "1", main=settings | LEADER))
    assert answer.code == 0, str(answer)
    shell(machine, "systemd-run --quiet --on-active=2 systemctl stop triton@main.service")
    assert asked(machine, EXIT_TIMEOUT + 1)["rank"] == 0
    wait_for(lambda: active(machine, "main") == "inactive", 60)
    assert not ready(machine)


@pytest.mark.usefixtures("engine")
def test_an_orchestrator_spawns_its_ranks_and_ends_with_them(
    machine: LabHost, settings: dict[str, Any], tmp_path: Path
) -> None:
    given = lab_inventory()["gpu-nodes"]["vars"]["triton"]["instances"]["main"] | settings | ORCHESTRATOR
    source = instances(tmp_path / "1", main=given)
    answer = apply(source)
    assert answer.code == 0, str(answer)
    found = ranks(machine)
    assert [one["size"] for one in found] == [1 + GPUS] * 3
    assert [found[0]["server"]] == commands(given)
    assert asked(machine) == found[0]
    proof = verified(source)
    assert proof.code == 0, str(proof)
    stopped(machine)


def test_more_ranks_than_gpus_are_refused(machine: LabHost, settings: dict[str, Any], tmp_path: Path) -> None:
    unit = shell(machine, "cat /etc/systemd/system/triton@main.service")
    answer = apply(instances(tmp_path, main=settings | {"world_size": GPUS + 1}))
    assert answer.code == 1, str(answer)
    assert f"triton@main.service: world_size is {GPUS + 1}, and the host has {GPUS} GPUs" in str(answer)
    named = apply(instances(tmp_path, main=settings | {"world_size": 2, "gpus": [1]}))
    assert named.code == 2, str(named)
    assert "2 ranks need a GPU each, and gpus has 1" in str(named)
    assert shell(machine, "cat /etc/systemd/system/triton@main.service") == unit
    assert ready(machine)
