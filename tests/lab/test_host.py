"""Role host on a lab host: what plan and verify say of single faults, and what stays when the settings go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.agreement import findings, planned, shell
from tests.lab.cli import inv, lab_inventory, write_inventory
from tests.lab.verify_faults import Fault

pytestmark = [pytest.mark.lab, pytest.mark.campaign("agreement", only=True)]

FAULTS = TypeAdapter(dict[str, Fault]).validate_python(
    yaml.safe_load(Path(__file__).with_name("host_faults.yml").read_text("utf-8"))
)
SETTINGS = {
    "hostname": "gpu-01.lab.example",
    "sysctl": {"net.ipv4.ip_local_port_range": "20000 61000"},
    "limits": {"nofile": 262144},
    "modules": {"options": {"nvme_core": {"io_timeout": 60}}},
    "governor": "performance",
    "journal_size": "100M",
}
ONE = ("--hosts", "gpu-01", "--json")
NO_CPUFREQ = "no cpufreq here"
"""What verify warns of on every lab host, whose machine lets the firmware govern."""


def inventory(folder: Path, **settings: object) -> Path:
    """The lab's inventory with settings of role host, and of no other."""
    document = lab_inventory()
    kept = {"mirror"}
    group = document["gpu-nodes"]
    group["vars"] = {key: value for key, value in group["vars"].items() if key in kept} | {"host": settings}
    return write_inventory(folder, document)


@pytest.fixture(scope="module")
def host(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabHost, Path]]:
    """gpu-01 as role host makes it from bare."""
    source = inventory(tmp_path_factory.mktemp("inventory"), **SETTINGS)
    answer = inv("provision", *ONE, "--yes", inventory=source)
    assert answer.code == 0, str(answer)
    yield lab.host("gpu-01"), source


def told(source: Path) -> list[str]:
    """What verify finds, besides what no lab host has."""
    return [
        line
        for line in findings(inv("verify", *ONE, inventory=source).host("gpu-01"))
        if NO_CPUFREQ not in line
    ]


@pytest.mark.parametrize("name", FAULTS)
def test_plan_and_verify_agree(host: tuple[LabHost, Path], name: str) -> None:
    machine, source = host
    fault = FAULTS[name]
    shell(machine, fault.breaks)
    plans = planned(inv("plan", *ONE, inventory=source).host("gpu-01"))
    found = told(source)
    if fault.alone:
        shell(machine, fault.mends)
        assert plans == []
    else:
        assert any(re.search(fault.plan, line) for line in plans), plans
    assert any(line.startswith(fault.check) and re.search(fault.says, line) for line in found), found
    answer = inv("provision", *ONE, "--yes", inventory=source)
    assert answer.code == 0, str(answer)
    assert planned(inv("plan", *ONE, inventory=source).host("gpu-01")) == []
    assert told(source) == []


def test_what_the_settings_no_longer_name_goes(host: tuple[LabHost, Path], tmp_path: Path) -> None:
    machine, source = host
    shell(machine, "echo '10.0.0.9 of-the-owner' >>/etc/hosts")
    nothing = inventory(tmp_path, protect_docker=False)
    assert inv("provision", *ONE, "--yes", inventory=nothing).code == 0
    assert planned(inv("plan", *ONE, inventory=nothing).host("gpu-01")) == []
    assert "provision" not in shell(
        machine, "cat /etc/hosts; ls /etc/*/*.d /etc/systemd/system /etc/sysctl.d"
    )
    assert "of-the-owner" in shell(machine, "cat /etc/hosts")
    assert "DefaultLimitNOFILE=262144" not in shell(machine, "systemctl show -p DefaultLimitNOFILE")
    assert inv("provision", *ONE, "--yes", inventory=source).code == 0
    removed = inv("remove", "--roles", "host", *ONE, "--yes", inventory=source)
    assert removed.code == 0, str(removed)
    assert "provision" not in shell(
        machine, "cat /etc/hosts; ls /etc/*/*.d /etc/systemd/system /etc/sysctl.d"
    )
