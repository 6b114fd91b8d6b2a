"""What Debian 13 has and Debian 12 has not: apt 3, and a Docker that knows CDI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import inv, lab_inventory, write_inventory
from tests.lab.test_provision import converged, host, image, provision, shell

pytestmark = pytest.mark.lab

__all__ = ["converged"]

NAME = "gpu-03"


def stop(machine: LabHost) -> None:
    """No container runs, so that docker may be restarted."""
    shell(machine, "systemctl stop triton@main.service")


@pytest.fixture(scope="module")
def source(converged: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory that switches CDI on, by a key of daemon.json."""
    document = lab_inventory()
    document["gpu-nodes"]["vars"]["docker"]["daemon"]["features"] = {"cdi": True}
    return write_inventory(tmp_path_factory.mktemp("cdi"), document)


@pytest.fixture(scope="module")
def with_cdi(converged: Lab, source: Path) -> Iterator[LabHost]:
    """The host whose Docker has CDI switched on; off again at the end."""
    machine = host(converged, NAME)
    stop(machine)
    answer = provision(pattern=NAME, inventory=source)
    assert answer.code == 0, str(answer)
    yield machine
    stop(machine)
    answer = provision(pattern=NAME)
    assert answer.code == 0, str(answer)


def test_the_host_is_what_it_says(converged: Lab) -> None:
    machine = host(converged, NAME)
    assert machine.sudo_password is not None
    assert inv("facts", "--hosts", NAME, "--json").host(NAME)["version"] == "13"
    assert shell(machine, "apt-get --version").startswith("apt 3.")
    assert shell(machine, "docker version --format '{{.Server.Version}}'").startswith("26.1.")
    assert shell(machine, "cat /sys/module/nvidia/version").startswith("590.")


@pytest.mark.parametrize(("device", "count"), [("0", 1), ("all", 2)])
def test_docker_itself_gives_gpus_by_their_cdi_names(with_cdi: LabHost, device: str, count: int) -> None:
    run = f"docker run --rm --runtime=runc --device nvidia.com/gpu={device} {image()}"
    assert shell(with_cdi, f"{run} nvidia-smi -L").count("GPU-") == count
    shell(with_cdi, f"{run} python3 -c 'import tensorrt_llm'")


@pytest.mark.usefixtures("with_cdi")
def test_verify_passes_with_cdi(source: Path) -> None:
    verified = inv("verify", "--hosts", NAME, "--json", inventory=source)
    assert verified.code == 0, str(verified)


def test_containers_with_cdi_devices_keep_them_over_a_daemon_reload(with_cdi: LabHost) -> None:
    shell(
        with_cdi,
        f"docker run --detach --name kept --runtime=runc --device nvidia.com/gpu=all {image()} sleep 600",
    )
    try:
        shell(with_cdi, "systemctl daemon-reload")
        assert shell(with_cdi, "docker exec kept nvidia-smi -L").count("GPU-") == 2
    finally:
        shell(with_cdi, "docker rm --force kept")


@pytest.mark.campaign("instances", only=True)
@pytest.mark.parametrize("injection", ["gpus", "cdi"])
def test_an_instance_gets_its_gpu_in_another_way(with_cdi: LabHost, source: Path, injection: str) -> None:
    document = json.loads((source.parent / "hosts.json.txt").read_text())
    main = document["gpu-nodes"]["vars"]["triton"]["instances"]["main"]
    main |= {"injection": injection, "gpus": [1]}
    one_gpu = write_inventory(source.parent / injection, document)
    answer = provision("--roles", "triton", pattern=NAME, inventory=one_gpu)
    assert answer.code == 0, str(answer)
    (second,) = shell(with_cdi, "nvidia-smi --id=1 --query-gpu=uuid --format=csv,noheader").split()
    assert shell(with_cdi, "docker exec triton-main nvidia-smi -L").count("GPU-") == 1
    assert second in shell(with_cdi, "docker exec triton-main nvidia-smi -L")
    verified = inv("verify", "--hosts", NAME, "--json", inventory=one_gpu)
    assert verified.code == 0, str(verified)
    assert provision("--roles", "triton", pattern=NAME, inventory=one_gpu).host(NAME)["changes"] == []
