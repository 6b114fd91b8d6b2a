"""Verification of real hosts: what serves passes, each fault is named once, and looking changes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.demo import inference
from lab.lab import Lab
from provision import roles
from provision.connection import Connection
from provision.inventory import sources
from provision.roles.triton.instance import Instance
from provision.roles.triton.role import TritonSettings
from provision.run import fleet
from tests.conftest import cases
from tests.lab.agreement import AGREEMENT, break_host, disagreements, shell, wait_for_serving, whole_gpus
from tests.lab.cli import INVENTORY, LAB, ROOT, Answer, inv
from tests.lab.verify_faults import FAULTS, Fault

pytestmark = pytest.mark.lab

BROKEN = "gpu-02"
SAMPLE = 5
"""Faults of the catalogue that a run tries; the campaign tries all."""
HEALTHY = 2
"""Looks at healthy hosts, none of which may find anything; the campaign takes 200."""


def look(pattern: str = "gpu-nodes", *arguments: str) -> Answer:
    """``inv verify --json``."""
    return inv("verify", "--hosts", pattern, "--json", *arguments)


def found(answer: Answer, name: str, *verdicts: str) -> dict[str, str]:
    """The checks of a host that ended so, by title, with what they say."""
    return {
        f"{check['role']}{' ' + check['instance'] if check['instance'] else ''}: {check['name']}": check[
            "message"
        ]
        for check in answer.host(name)["checks"]
        if check["verdict"] in verdicts
    }


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Lab:
    """All hosts provisioned from bare: what other tests left behind would be a finding."""
    for machine in lab.hosts:
        machine.reset()
    answer = inv("provision", "--hosts", "gpu-nodes", "--yes", "--json")
    assert answer.code == 0, str(answer)
    return lab


def test_hosts_that_serve_pass_in_a_few_rounds(serving: Lab, tmp_path: Path) -> None:
    answer = look("gpu-nodes", "--junit", str(tmp_path / "verify.xml"))
    assert answer.code == 0, str(answer)
    summary = answer.document["summary"]
    assert summary["rounds"] <= 12
    assert summary["live"] == []
    for machine in serving.hosts:
        host = answer.host(machine.name)
        assert host["status"] == "ok"
        assert (host["connects"], host["execs"]) == (1, summary["rounds"])
        assert len(found(answer, machine.name, "pass")) >= 40
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


def test_a_quick_look_starts_no_container(serving: Lab) -> None:
    machine = serving.host("gpu-01")
    events = "docker events --since {} --until $(date +%s) --filter event=create --format '{{{{.Actor.ID}}}}'"
    time.sleep(1.1)  # Docker's events are asked for by seconds, and others looked before
    since = shell(machine, "date +%s").strip()
    answer = look("gpu-01", "--quick")
    assert answer.code == 0, str(answer)
    assert shell(machine, events.format(since)) == ""
    assert len(found(answer, "gpu-01", "pass")) >= 30


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A sample of the faults, or all of them."""
    if "name_of_fault" in metafunc.fixturenames:
        metafunc.parametrize(
            "name_of_fault", cases(metafunc.config, "verify", FAULTS, SAMPLE), scope="function"
        )


@pytest.fixture
def fault(serving: Lab, name_of_fault: str) -> Iterator[Fault]:
    """A host with one fault, mended afterwards."""
    fault = FAULTS[name_of_fault]
    machine = serving.host(BROKEN)
    break_host(machine, fault)
    try:
        yield fault
    finally:
        whole_gpus(machine, fault)
        if fault.mends == "provision":
            assert inv("provision", "--hosts", BROKEN, "--yes").code == 0
        else:
            shell(machine, fault.mends)
        wait_for_serving(machine)


@pytest.mark.campaign("verify")
def test_a_fault_is_named_once(fault: Fault) -> None:
    answer = look(BROKEN)
    verdicts = found(answer, BROKEN, "fail", "warn")
    assert list(verdicts) == [fault.check], f"{verdicts}\n{found(answer, BROKEN, 'skip')}"
    assert re.search(fault.says, verdicts[fault.check])
    assert answer.code == (0 if fault.check in found(answer, BROKEN, "warn") else 3)


@pytest.mark.campaign("verify")
def test_healthy_hosts_have_no_findings(serving: Lab, request: pytest.FixtureRequest) -> None:
    campaign = request.config.getoption("--campaign") == "verify"
    for _ in range(200 if campaign else HEALTHY):
        answer = look()
        assert answer.code == 0, str(answer)
        for machine in serving.hosts:
            assert found(answer, machine.name, "fail", "warn") == {}


def test_plan_and_verify_agree_on_a_sample(serving: Lab, request: pytest.FixtureRequest) -> None:
    names = cases(request.config, "agreement", AGREEMENT, 4)
    machines = [serving.host("gpu-01"), serving.host(BROKEN)]
    for batch in (names[:2], names[2:]):
        assert disagreements(machines, batch, "--quick") == {}


def test_a_fault_of_one_host_is_not_that_of_another(serving: Lab) -> None:
    machine = serving.host(BROKEN)
    shell(machine, "systemctl stop triton@main.service")
    try:
        answer = inv("verify", "--hosts", "gpu-nodes")
    finally:
        shell(machine, "systemctl start triton@main.service")
    assert answer.code == 3
    assert f"{BROKEN}" in answer.out
    assert "2 ok" in answer.out
    assert "{host}" not in answer.out


def test_unreachable_host_is_one_sentence_and_the_others_go_on(serving: Lab) -> None:
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


def test_the_suite_of_the_documentation_passes(serving: Lab, tmp_path: Path) -> None:
    """A user's own tests, as docs/verify.md has them."""
    page = (ROOT / "docs/verify.md").read_text("utf-8")
    text = page.partition("```python\n")[2].partition("```")[0]
    assert text.count("\ndef test_") == 10
    (tmp_path / "test_documented.py").write_text(
        text.replace("NTPSynchronized", "NTP").replace('"yes"', '"no"')
    )
    for machine in serving.hosts:
        shell(machine, "mkdir -p /srv/models")
    answer = look("gpu-nodes", "--tests", str(tmp_path), "-k", "not models")
    assert answer.code == 0, str(answer)
    assert answer.document["summary"]["checks"]["pass"] == 3 * 10
    assert answer.document["summary"]["live"] == []


def test_one_inference(serving: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISION_LAB", LAB)
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
