"""Instances of Triton that change, swap, move and fail: what serves goes on, or serves again."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import Answer, inv, lab_inventory, write_inventory
from tests.lab.test_provision import converged, host, provision, shell, wait_for

pytestmark = pytest.mark.lab

__all__ = ["converged"]

NAME = "gpu-01"
OTHER_PORTS = {"http_port": 9000, "grpc_port": 9001, "metrics_port": 9002}


def instances(folder: Path, archives: str | None = None, **changes: dict[str, Any]) -> Path:
    """An inventory with these instances, each with what the lab's own has, and archives of images."""
    document = lab_inventory()
    triton = document["gpu-nodes"]["vars"]["triton"]
    triton["images"] = archives
    main = triton["instances"]["main"]
    triton["instances"] = {name: {**copy.deepcopy(main), **change} for name, change in changes.items()}
    return write_inventory(folder, document)


def apply(source: Path) -> Answer:
    return provision("--roles", "triton", pattern=NAME, inventory=source)


def ready(machine: LabHost, port: int = 8000) -> bool:
    """Whether something that is ready answers there."""
    ask = "printf 'GET /v2/health/ready HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3"
    return " 200 " in machine.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; {ask}"]).stdout


def active(machine: LabHost, name: str) -> str:
    return machine.run(["systemctl", "is-active", f"triton@{name}.service"]).stdout.strip()


@pytest.fixture
def machine(converged: Lab) -> LabHost:
    return host(converged, NAME)


@pytest.mark.campaign("instances")
def test_two_instances_swap_their_ports_in_one_run(machine: LabHost, tmp_path: Path) -> None:
    both = apply(instances(tmp_path / "1", main={}, second=OTHER_PORTS))
    assert both.code == 0, str(both)
    swapped = instances(tmp_path / "2", main=OTHER_PORTS, second={})
    answer = apply(swapped)
    assert answer.code == 0, str(answer)
    impact = "triton@main.service does not serve until it has loaded its models again"
    assert impact in str(answer), str(answer)
    assert ready(machine, 8000)
    assert ready(machine, 9000)
    assert "--publish=127.0.0.1:9000:8000" in shell(machine, "systemctl cat triton@main.service")
    assert apply(swapped).host(NAME)["changes"] == []


@pytest.mark.campaign("instances", only=True)
def test_an_instance_with_another_name_takes_over_when_it_serves(machine: LabHost, tmp_path: Path) -> None:
    assert apply(instances(tmp_path / "1", main={})).code == 0
    bad = apply(instances(tmp_path / "2", other={"args": ["--no-such-flag"]}))
    assert bad.code == 1, str(bad)
    assert "triton@main.service is started again" in str(bad)
    wait_for(lambda: active(machine, "main") == "active")
    assert active(machine, "other") == "inactive"
    assert machine.run(["systemctl", "is-enabled", "triton@other.service"]).stdout.strip() == "disabled"
    good = apply(instances(tmp_path / "3", other={}))
    assert good.code == 0, str(good)
    assert ready(machine)
    assert machine.run(["test", "-e", "/etc/systemd/system/triton@main.service"]).returncode == 1
    assert apply(instances(tmp_path / "4", main={})).code == 0


@pytest.mark.campaign("instances", only=True)
def test_a_takeover_of_ports_in_a_run_that_restarts_docker(machine: LabHost, tmp_path: Path) -> None:
    """The old instance comes up again with Docker, while the new one is to take its port."""
    assert apply(instances(tmp_path / "1", main={})).code == 0
    for new, old, size in (("other", "main", {"max-size": "10m"}), ("main", "other", {})):
        instances(tmp_path / new, None, **{new: {}})
        document = json.loads((tmp_path / new / "hosts.json.txt").read_text())
        docker = document["gpu-nodes"]["vars"]["docker"]
        docker["restart"] = "allowed"
        docker["daemon"] |= {"log-opts": size} if size else {}
        source = write_inventory(tmp_path / new, document)
        answer = provision("--roles", "docker,triton", pattern=NAME, inventory=source)
        assert answer.code == 0, str(answer)
        assert active(machine, new) == "active"
        assert active(machine, old) == "inactive"
    assert provision("--roles", "docker,triton", pattern=NAME).host(NAME)["changes"] == []


@pytest.mark.campaign("instances", only=True)
def test_an_image_that_is_not_there_leaves_an_instance_able_to_start(
    machine: LabHost, tmp_path: Path
) -> None:
    image = lab_inventory()["gpu-nodes"]["vars"]["triton"]["instances"]["main"]["image"]
    answer = apply(instances(tmp_path, other={"image": f"{image}-none"}))
    assert answer.code == 1, str(answer)
    shell(machine, "systemctl restart triton@main.service")
    assert ready(machine)


@pytest.mark.campaign("instances", only=True)
def test_a_confined_instance_serves(machine: LabHost, tmp_path: Path) -> None:
    confined = {"capabilities": [], "read_only": True, "no_new_privileges": True, "user": "1000:1000"}
    source = instances(tmp_path / "1", main=confined)
    answer = apply(source)
    assert answer.code == 0, str(answer)
    process = "/proc/$(pgrep -x tritonserver)/status"
    status = dict(line.split(":\t", 1) for line in shell(machine, f"cat {process}").splitlines())
    assert (status["CapBnd"], status["NoNewPrivs"]) == ("0000000000000000", "1")
    assert status["Uid"].split() == ["1000"] * 4
    inside = "docker exec --user root triton-main"
    assert "Read-only file system" in machine.run(["sh", "-c", f"{inside} touch /opt/x"]).stderr
    assert inv("verify", "--hosts", NAME, "-k", "triton", inventory=source).code == 0
    assert apply(instances(tmp_path / "2", main={})).code == 0


@pytest.mark.campaign("instances", only=True)
def test_orderly_restarts_never_count(machine: LabHost) -> None:
    for _ in range(7):
        shell(
            machine, "systemctl reset-failed docker.service docker.socket; systemctl restart docker.service"
        )
    wait_for(lambda: active(machine, "main") == "active", 60)
    shell(machine, "systemctl stop docker.socket docker.service && systemctl start docker.service")
    wait_for(lambda: ready(machine), 60)


@pytest.mark.campaign("instances", only=True)
def test_a_cause_that_goes_away_lets_it_serve_again(machine: LabHost) -> None:
    shell(machine, "mv /usr/bin/nvidia-smi /usr/bin/nvidia-smi.away")
    try:
        machine.run(["systemctl", "restart", "triton@main.service"])
        assert active(machine, "main") != "active"
    finally:
        shell(machine, "mv /usr/bin/nvidia-smi.away /usr/bin/nvidia-smi")
    wait_for(lambda: ready(machine), 60)


def of_main(machine: LabHost) -> tuple[str, str]:
    """The image that the container of main runs, and the version of its unit file."""
    ran = shell(machine, "docker inspect --format '{{.Image}}' triton-main").strip()
    return ran, shell(machine, "sha256sum </etc/systemd/system/triton@main.service").strip()


@pytest.mark.campaign("instances", only=True)
def test_a_version_that_does_not_get_ready_gives_way_to_the_previous_one(
    machine: LabHost, tmp_path: Path
) -> None:
    good = instances(tmp_path / "1", main={"rollback": True})
    assert apply(good).code == 0
    before = of_main(machine)
    bad = instances(
        tmp_path / "2",
        main={"rollback": True, "env": {"A": "b"}, "args": ["--no-such-flag"]},
        second=OTHER_PORTS,
    )
    answer = apply(bad)
    assert answer.code == 1, str(answer)
    assert "unrecognized option '--no-such-flag'; the previous version serves again" in str(answer)
    assert ready(machine)
    assert of_main(machine) == before
    assert "A=b" not in shell(machine, "cat /etc/triton/main.env")
    assert active(machine, "second") != "active", "the run ended with the first failure"
    again = inv("plan", "--hosts", NAME, "--roles", "triton", "--json", inventory=bad)
    assert "file:/etc/systemd/system/triton@main.service" in str(again), str(again)
    assert apply(good).code == 0
    assert of_main(machine) == before
    assert apply(good).host(NAME)["changes"] == []


@pytest.mark.campaign("instances", only=True)
def test_an_image_tagged_anew_that_does_not_get_ready_gives_way_to_the_one_that_ran(
    machine: LabHost, tmp_path: Path
) -> None:
    source = instances(tmp_path, main={"rollback": True})
    assert apply(source).code == 0
    before = of_main(machine)
    image = lab_inventory()["gpu-nodes"]["vars"]["triton"]["instances"]["main"]["image"]
    shell(
        machine,
        f"printf 'FROM {image}\\nRUN rm -rf /opt/tritonserver/backends\\n'"
        f" | docker build --quiet --tag {image} -",
    )
    answer = apply(source)
    assert answer.code == 1, str(answer)
    assert "the previous version serves again" in str(answer)
    assert f"{image} is tagged as before" in str(answer)
    assert ready(machine)
    assert of_main(machine) == before
    assert apply(source).host(NAME)["changes"] == []


@pytest.mark.campaign("instances", only=True)
def test_an_image_comes_from_an_archive_where_no_registry_has_it(machine: LabHost, tmp_path: Path) -> None:
    image = lab_inventory()["gpu-nodes"]["vars"]["triton"]["instances"]["main"]["image"]
    other = f"{image.rpartition(':')[0]}:24.07-archived"
    wrong = f"{image.rpartition(':')[0]}:24.07-wrong"
    source = instances(tmp_path / "1", archives="/srv/images", main={"image": other})
    shell(
        machine,
        f"mkdir -p /srv/images && docker tag {image} {other} && docker save {other} | gzip -1"
        " >/srv/images/tritonserver-24.07-archived.tar.gz"
        f" && docker image rm {other} && docker save -o /srv/images/tritonserver-24.07-wrong.tar {image}",
    )
    answer = apply(source)
    assert answer.code == 0, str(answer)
    assert ready(machine)
    answer = apply(instances(tmp_path / "2", archives="/srv/images", main={"image": wrong}))
    assert answer.code == 1, str(answer)
    says = f"tritonserver-24.07-wrong.tar was loaded: it holds {image}, and not {wrong}"
    assert says in str(answer)
    assert ready(machine)
    assert apply(instances(tmp_path / "3", main={})).code == 0


SLOW = "import time\n\n\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(900)\n"


@pytest.mark.campaign("instances", only=True)
def test_a_mended_instance_does_not_join_its_old_start(machine: LabHost, tmp_path: Path) -> None:
    canary = "/usr/local/share/provision/triton/provision_canary/config.pbtxt"
    shell(
        machine,
        "mkdir -p /srv/slow/slow/1 && cd /srv/slow/slow"
        f" && sed s/provision_canary/slow/ {canary} >config.pbtxt && printf '{SLOW}' >1/model.py",
    )
    stuck = apply(instances(tmp_path / "1", main={"models": "/srv/slow", "ready_timeout": 45}))
    assert stuck.code == 1, str(stuck)
    sub = ["systemctl", "show", "-p", "SubState", "--value", "triton@main.service"]
    wait_for(lambda: machine.run(sub).stdout.strip() == "start-post", 60)
    began = time.monotonic()
    mended = apply(instances(tmp_path / "2", main={}))
    assert mended.code == 0, str(mended)
    assert time.monotonic() - began < 40, "it waited for the old start"


@pytest.mark.campaign("instances", only=True)
def test_models_on_a_mount_are_waited_for(machine: LabHost, tmp_path: Path) -> None:
    dropin = "/etc/systemd/system/mnt-late.mount.d"
    shell(
        machine,
        "umount /mnt/late; rm -rf /srv/store;"
        f" mkdir -p /mnt/late {dropin} && echo '/srv/store /mnt/late none bind,noauto 0 0' >>/etc/fstab"
        f" && printf '[Unit]\\nAssertPathExists=/srv/store/models\\n' >{dropin}/late.conf"
        " && systemctl daemon-reload",
    )
    try:
        source = instances(tmp_path / "1", main={"models": "/mnt/late/models", "ready_timeout": 60})
        answer = apply(source)
        assert answer.code == 1, str(answer)
        assert "/mnt/late/models is not there: mnt-late.mount is not mounted" in str(answer)
        shell(machine, "mkdir -p /srv/store/models")
        wait_for(lambda: ready(machine), 60)
        shell(machine, "mountpoint /mnt/late")
        assert apply(source).code == 0
    finally:
        shell(machine, f"rm -r {dropin} && sed -i /mnt.late/d /etc/fstab && systemctl daemon-reload")
        assert apply(instances(tmp_path / "2", main={})).code == 0
        shell(machine, "umount /mnt/late || :")
