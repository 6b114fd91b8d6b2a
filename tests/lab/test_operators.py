"""What operators do to a run: interrupt it, start it twice, ask for the impossible, go in batches."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.cli import Answer, inv, lab_inventory, start, write_inventory
from tests.lab.test_provision import converged, host, provision, running, shell, wait_for

pytestmark = pytest.mark.lab

__all__ = ["converged"]


def test_an_interrupt_ends_the_command_and_not_the_run(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    roles = ("--roles", "driver,toolkit")
    process = start("provision", "--hosts", "gpu-02", "--yes", *roles)
    wait_for(lambda: running(machine))
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the next provision attaches to a run" in err
    assert "Traceback" not in err
    assert running(machine)
    assert provision(*roles, pattern="gpu-02").code == 0


def test_two_operators_at_once_both_end_well(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    both = [start("provision", "--hosts", "gpu-02", "--yes", "--json") for _ in range(2)]
    answers = []
    for process in both:
        out, err = process.communicate(timeout=600)
        answers.append(Answer(process.returncode, out, err))
    assert [answer.code for answer in answers] == [0, 0], "\n".join(map(str, answers))
    assert any("attached to it" in answer.err for answer in answers)
    steps = shell(machine, "cat /run/provision/*/events | grep -c '^ok'")
    planned = max(len(answer.host("gpu-02")["changes"]) for answer in answers)
    assert int(steps) <= planned, "a change was made twice"
    assert provision(pattern="gpu-02").host("gpu-02")["changes"] == []


def test_a_server_that_does_not_start_fails_with_its_own_words(converged: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    document["gpu-nodes"]["vars"]["triton"]["instances"]["main"]["args"] = ["--no-such-flag"]
    answer = provision(pattern="gpu-01", inventory=write_inventory(tmp_path, document))
    assert answer.code == 1, str(answer)
    error = answer.host("gpu-01")["error"]
    assert error["resource"] == "handler:restart triton@main.service"
    assert "unrecognized option '--no-such-flag'" in error["stderr"] + answer.err, error
    assert error["hint"]
    assert provision(pattern="gpu-01").code == 0
    shell(host(converged, "gpu-01"), "systemctl is-active triton@main.service")


def test_a_batch_that_fails_stops_the_next_one(converged: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    document["_meta"]["hostvars"]["gpu-01"] |= {"ansible_host": "127.0.0.1", "ansible_port": 9}
    source = write_inventory(tmp_path, document)
    machine = host(converged, "gpu-02")
    shell(machine, "rm /etc/modprobe.d/provision-nouveau.conf")
    stopped = provision("--serial", "1", inventory=source)
    assert stopped.code == 1
    assert stopped.host("gpu-01")["status"] == "unreachable"
    assert stopped.host("gpu-02")["status"] == "skipped"
    assert machine.run(["test", "-e", "/etc/modprobe.d/provision-nouveau.conf"]).returncode != 0
    tolerant = provision("--serial", "1", "--max-failed", "1", inventory=source)
    assert tolerant.code == 1
    assert tolerant.host("gpu-02")["status"] == "changed"


def test_facts_and_files_of_a_host(lab: Lab, tmp_path: Path) -> None:
    facts = inv("facts", "--hosts", "all", "--json")
    assert facts.code == 0, str(facts)
    assert facts.host("gpu-01")["os"] == "debian"
    assert len(facts.host("gpu-01")["gpus"]) == 2
    rendered = inv("render", "--hosts", "gpu-01", "--out", str(tmp_path))
    assert rendered.code == 0, str(rendered)
    unit = tmp_path / "gpu-01/etc/systemd/system/triton@main.service"
    assert "--pull=never" in unit.read_text()
    listed = inv("inventory", "--json")
    assert listed.document["schema"] == 1
    assert listed.host("gpu-01")["groups"] == ["gpu-nodes"]


def test_an_unknown_host_key_is_refused_and_enrolled_once_shown(lab: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    known = tmp_path / "known_hosts"
    for variables in document["_meta"]["hostvars"].values():
        variables.pop("host_key")
        variables["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={known}"
    source = write_inventory(tmp_path, document)
    early = inv("plan", "--hosts", "gpu-01", inventory=source)
    assert early.code == 2
    assert "the SSH host key of gpu-01 is not known" in early.err
    refused = inv("facts", "--hosts", "gpu-01", inventory=source)
    assert refused.code == 1
    assert "is not known: ssh-ed25519 SHA256:" in refused.err
    assert "--enroll" in refused.err
    unasked = inv("facts", "--hosts", "gpu-01", "--enroll", inventory=source)
    assert unasked.code == 2
    assert "Nobody can be asked here, so nothing was changed" in unasked.err
    assert not known.exists()
    enrolled = inv("facts", "--hosts", "gpu-01", "--accept-new", inventory=source)
    assert enrolled.code == 0, str(enrolled)
    assert "gpu-01: ssh-ed25519 SHA256:" in enrolled.err
    assert inv("facts", "--hosts", "gpu-01", inventory=source).code == 0
    assert len(known.read_text().splitlines()) == 1
