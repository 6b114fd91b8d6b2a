"""Verification of real hosts: what serves passes, what is broken is named, and looking changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.demo import inference
from lab.host import LabHost
from lab.lab import Lab
from provision import roles
from provision.connection import Connection
from provision.inventory import sources
from provision.roles.triton.role import Instance, TritonSettings
from provision.run import fleet
from provision.verify.suite import asking, verify
from tests.lab.cli import INVENTORY, Answer, inv

pytestmark = pytest.mark.lab

BROKEN = "gpu-02"


def shell(machine: LabHost, script: str) -> str:
    """Run a script as root on a host, out of band; its output."""
    done = machine.run(["sh", "-c", script])
    assert done.returncode == 0, f"{script}: {done.stdout} {done.stderr}"
    return str(done.stdout)


def look(pattern: str = "gpu-nodes", *arguments: str) -> Answer:
    """``inv verify --json``."""
    return inv("verify", "--hosts", pattern, "--json", *arguments)


def failures(answer: Answer, name: str) -> dict[str, str]:
    """The failing checks of a host with what they say."""
    checks = answer.host(name)["checks"]
    return {check["name"]: check["message"] for check in checks if check["verdict"] == "fail"}


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Lab:
    """All hosts provisioned."""
    answer = inv("provision", "--hosts", "gpu-nodes", "--yes", "--json")
    assert answer.code == 0, str(answer)
    return lab


def test_hosts_that_serve_pass_with_one_connection_and_one_exec(serving: Lab, tmp_path: Path) -> None:
    answer = look("gpu-nodes", "--junit", str(tmp_path / "verify.xml"))
    assert answer.code == 0, str(answer)
    for machine in serving.hosts:
        found = answer.host(machine.name)
        assert found["status"] == "ok"
        assert (found["connects"], found["execs"]) == (1, 1)
        assert len([check for check in found["checks"] if check["verdict"] == "pass"]) >= 28
    suite = ElementTree.parse(tmp_path / "verify.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("errors"), suite.get("failures")) == ("0", "0")


def test_looking_changes_nothing(serving: Lab) -> None:
    machine = serving.host("gpu-01")
    listing = (
        "find /etc /usr /run/systemd/system /srv -xdev -printf '%p %y %m %u %s %T@\\n' | sort;"
        " docker ps --all --format '{{.ID}} {{.Names}}'; docker images --quiet; ls /dev /run | sort"
    )
    before = shell(machine, listing)
    assert look("gpu-01").code == 0
    assert shell(machine, listing) == before


FAULTS: dict[str, tuple[str, dict[str, str], str]] = {
    "another default runtime": (
        'sed -i.kept \'s/"default-runtime": "nvidia"/"default-runtime": "runc"/\' /etc/docker/daemon.json'
        " && systemctl reload docker && sleep 1",
        {
            "default runtime is loaded": "with runc by default, not with nvidia",
            "plain container has nvml": "without the driver's libraries",
            "plain container imports tensorrt llm": "without the driver's libraries",
            "plain container sees all gpus": "without a GPU",
        },
        "mv /etc/docker/daemon.json.kept /etc/docker/daemon.json && systemctl reload docker && sleep 1",
    ),
    "unit stopped": (
        "systemctl stop triton@main.service",
        {"unit is active": "triton@main.service is inactive"},
        "systemctl start triton@main.service",
    ),
    "backend killed behind a server that says it is ready": (
        "for pid in $(docker top triton-main -eo pid,args | awk '/triton_python_backend_stub/ {print $1}');"
        " do kill -9 $pid; done",
        {"canary answers from the assigned gpus": "no answer within 15 s"},
        # A server without its backend takes half a minute to stop.
        "docker kill triton-main && systemctl restart triton@main.service",
    ),
    "driver's library gone": (
        "cd /usr/lib/x86_64-linux-gnu && mkdir /root/kept && mv libnvidia-ml.so* /root/kept && ldconfig",
        {
            "every gpu on the bus answers": "libnvidia-ml.so.1",
            "all parts are of one version": "libnvidia-ml.so.1",
            "persistence mode is on": "libnvidia-ml.so.1",
            "cdi spec is of this driver": "/var/run/cdi/nvidia.yaml is stale",
            "plain container has nvml": "libnvidia-ml.so.1",
            "plain container imports tensorrt llm": "libnvidia-ml.so.1",
            "plain container sees all gpus": "libnvidia-ml.so.1",
            "container with none sees no gpu": "libnvidia-ml.so.1",
            "canary answers from the assigned gpus": "libnvidia-ml.so.1",
            "container sees the assigned gpus": "libnvidia-ml.so.1",
        },
        "mv /root/kept/* /usr/lib/x86_64-linux-gnu && rmdir /root/kept && ldconfig",
    ),
    "device node gone": (
        "rm /dev/nvidia-uvm",
        {
            "device nodes are there": "/dev/nvidia-uvm",
            "cdi spec is of this driver": "/var/run/cdi/nvidia.yaml is stale",
        },
        "nvidia-modprobe -c 0 -u",
    ),
    "a package of another version": (
        "cp /var/lib/dpkg/status /root/status.kept && sed -i '/^Package: libnvidia-container1$/,/^$/"
        "s/^Version: .*/Version: 1.19.0-1/' /var/lib/dpkg/status",
        {"packages are of one version": "libnvidia-container1 1.19.0-1"},
        "mv /root/status.kept /var/lib/dpkg/status",
    ),
}


@pytest.fixture(params=FAULTS)
def fault(serving: Lab, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """One host with one fault, mended afterwards; what must fail there."""
    break_it, expected, mend_it = FAULTS[request.param]
    machine = serving.host(BROKEN)
    shell(machine, break_it)
    try:
        yield expected
    finally:
        shell(machine, mend_it)


def test_fault_is_named_on_its_host_and_on_no_other(fault: dict[str, str]) -> None:
    answer = look()
    assert answer.code == 3, str(answer)
    assert answer.document["summary"]["ok"] == 2
    found = failures(answer, BROKEN)
    # Whether the server has GPU metrics depends on its CUDA, which has no stand-in for all of it.
    assert found.keys() - {"metrics show the assigned gpus"} == fault.keys()
    for check, part in fault.items():
        assert part in found[check]


def test_after_all_faults_are_mended_everything_passes(serving: Lab) -> None:
    answer = look()
    assert answer.code == 0, str(answer)


def test_unreachable_host_is_one_sentence_and_the_others_go_on(serving: Lab, tmp_path: Path) -> None:
    with serving.host("gpu-03").unreachable():
        began = time.monotonic()
        answer = look()
        seconds = time.monotonic() - began
    assert answer.code == 1, str(answer)
    assert {name: host["status"] for name, host in answer.document["hosts"].items()} == {
        "gpu-01": "ok",
        "gpu-02": "ok",
        "gpu-03": "unreachable",
    }
    assert answer.host("gpu-03")["error"]["message"]
    assert "Traceback" not in answer.out + answer.err
    assert seconds < 60


def test_own_tests_ask_more_over_the_same_connection(
    serving: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVISION_LAB", "test")
    (tmp_path / "test_own_live.py").write_text(
        """
def test_docker(host):
    assert host.service("docker").is_running
    assert host.file("/etc/docker/daemon.json").contains("nvidia")
    assert host.run("id -u").stdout.strip() == "0"
    assert host.run("printf %s", "it's ä").stdout == "it's ä"
    assert host.run("exit 3").rc == 3
    assert host.package("nvidia-container-toolkit").version == "1.20.0-1"
"""
    )
    targets, _ = fleet.targets(sources.load([INVENTORY]).select("gpu-nodes"), roles.all_roles())
    with asking(targets, 5, lambda *_: None, lambda: None) as ask:
        result = verify(targets, ask, suites=[tmp_path])
    assert result.exit_code == 0, result.text()
    assert {host.connects for host in result.hosts} == {1}


def test_one_inference(serving: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISION_LAB", "test")
    targets, _ = fleet.targets(
        sources.load([INVENTORY]).select("gpu-01"), roles.choose(roles.all_roles(), ["triton"])
    )
    settings = next(iter(targets[0].settings.values()))
    assert isinstance(settings, TritonSettings)
    instance: Instance = settings.servers["main"]
    with Connection(targets[0].login) as connection:
        answer = inference(connection, "main", instance, "it's ä 🚀")
    assert "it's ä 🚀" in answer["answer"]
    there = shell(serving.host("gpu-01"), "nvidia-smi --query-gpu=uuid --format=csv,noheader").split()
    assert answer["GPUs that served it"] == ", ".join(there)
