"""A change of the driver's branch on a host that serves, there and back; its GPUs are joined by NVSwitches.

The tests of this file are one story and run in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import INVENTORY, Answer, inv, lab_inventory, write_inventory
from tests.lab.test_provision import host, provision, shell

pytestmark = pytest.mark.lab

NAME = "gpu-01"
READY = (
    "docker exec triton-main python3 -c"
    " \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/v2/health/ready').status)\""
)
INSTALLED = "dpkg-query -W -f '${Package} ${Version}\\n'; ls -l --time-style=full-iso /etc/apt/preferences.d"


@pytest.fixture(scope="module")
def old(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory with the older driver and toolkit."""
    document = lab_inventory()
    variables = document["gpu-nodes"]["vars"]
    variables["driver"] |= {"branch": 570, "version": "570.211.01-1"}
    variables["toolkit"] |= {"version": "1.19.1-1"}
    machine = host(lab, NAME)
    machine.stop()
    machine.add_nvswitches(4)
    machine.boot()
    yield write_inventory(tmp_path_factory.mktemp("old"), document)
    machine.stop()
    machine.add_nvswitches(0)
    machine.boot()


@pytest.fixture(scope="module")
def new(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's inventory, with the newest toolkit asked for: without that, 1.19.1 stays."""
    document = lab_inventory()
    document["gpu-nodes"]["vars"]["toolkit"] |= {"version": "1.20.0-1"}
    return write_inventory(tmp_path_factory.mktemp("new"), document)


def change(*arguments: str, inventory: Path = INVENTORY) -> Answer:
    """``inv provision`` of the host of the story."""
    return provision(*arguments, pattern=NAME, inventory=inventory)


def proven(machine: LabHost, driver: str, toolkit: str, inventory: Path) -> None:
    """The host has these versions everywhere, and verify has nothing to say against it."""
    assert shell(machine, "cat /sys/module/nvidia/version").strip() == driver
    assert shell(machine, "nvidia-smi --version").splitlines()[2].endswith(driver)
    assert shell(machine, "nvidia-ctk --version").splitlines()[0].endswith(toolkit)
    assert shell(machine, "nv-fabricmanager --version").strip().endswith(driver)
    assert shell(machine, "systemctl is-active nvidia-fabricmanager.service").strip() == "active"
    assert shell(machine, READY).strip() == "200"
    verified = inv("verify", "--hosts", NAME, "--json", inventory=inventory)
    assert verified.code == 0, str(verified)


def test_a_host_with_nvswitches_gets_a_fabric_manager_of_the_drivers_version(lab: Lab, old: Path) -> None:
    machine = host(lab, NAME)
    answer = change()
    assert answer.code == 0, str(answer)
    proven(machine, "580.159.04", "1.20.0", INVENTORY)


def test_the_way_back_works(lab: Lab, old: Path) -> None:
    answer = change("--allow-branch-change", "--reboot", inventory=old)
    assert answer.code == 0, str(answer)
    assert answer.host(NAME)["reboots"] == 1
    proven(host(lab, NAME), "570.211.01", "1.19.1", old)


def test_the_plan_tells_reason_order_and_impact(old: Path, new: Path) -> None:
    plan = inv("plan", "--hosts", NAME, inventory=new)
    assert plan.code == 3, str(plan)
    for words in (
        "branch 570 → 580",
        "not allowed yet: read the plan, then add --allow-branch-change",
        "upgrade nvidia-driver-cuda 570.211.01-1 → 580.159.04-1",
        "upgrade libnvidia-ml1 570.211.01-1 → 580.159.04-1",
        "remove nvidia-fabricmanager-570",
        "reboot the host  (570.211.01 is loaded",
        "tritonserver",
        "in container triton-main uses the GPUs and ends",
        "container triton-main (",
    ):
        assert words in plan.out, f"{words}\n{plan}"
    order = ("upgrade nvidia-driver-cuda=580", "reboot the host", "upgrade nvidia-container-toolkit=1.20.0-1")
    places = [plan.out.index(step) for step in order]
    assert places == sorted(places), str(plan)


@pytest.mark.parametrize(
    ("flags", "says"),
    [((), "--allow-branch-change"), (("--allow-branch-change",), "reboot needed: ")],
)
def test_without_permission_nothing_is_touched_and_the_host_serves_on(
    lab: Lab, new: Path, flags: tuple[str, ...], says: str
) -> None:
    machine = host(lab, NAME)
    before = shell(machine, INSTALLED)
    boot = machine.boot_id()
    answer = change(*flags, inventory=new)
    assert answer.code == 1, str(answer)
    error = answer.host(NAME)["error"]
    assert says in f"{error['message']}\n{error['hint']}", str(answer)
    assert shell(machine, INSTALLED) == before
    assert machine.boot_id() == boot
    assert shell(machine, READY).strip() == "200"


def test_with_both_permissions_the_host_serves_on_the_new_branch(lab: Lab, new: Path) -> None:
    machine = host(lab, NAME)
    boot = machine.boot_id()
    answer = change("--allow-branch-change", "--reboot", inventory=new)
    assert answer.code == 0, str(answer)
    assert answer.host(NAME)["reboots"] == 1
    assert machine.boot_id() != boot
    proven(machine, "580.159.04", "1.20.0", new)
    assert change(inventory=new).host(NAME)["changes"] == []
