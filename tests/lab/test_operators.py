"""What operators do to a run: interrupt it, start it twice, ask for the impossible, go in batches."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lab.gpus import SLOTS
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


def test_without_a_terminal_and_without_a_yes_nothing_is_written(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    listing = "find / -xdev -newer /run/before -type f ! -path '/var/log/*' ! -path '/run/*' | sort"
    for options in ((), ("--json",)):
        shell(machine, "touch /run/before")
        answer = inv("provision", "--hosts", "gpu-02", *options)
        assert answer.code == 2, str(answer)
        assert "Nobody can be asked here, so nothing was changed\nhint: --yes says yes" in answer.err
        assert "RECAP" not in answer.out
        written = shell(machine, listing).split()
        assert [path for path in written if "provision" in path or path.startswith("/etc/")] == []
        assert machine.run(["test", "-e", "/run/provision"]).returncode != 0
        assert machine.run(["test", "-e", "/var/lib/provision"]).returncode != 0


def test_two_operators_at_once_both_end_well(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    both = [start("provision", "--hosts", "gpu-02", "--yes", "--json") for _ in range(2)]
    answers = []
    for process in both:
        out, err = process.communicate(timeout=600)
        answers.append(Answer(process.returncode, out, err))
    assert [answer.code for answer in answers] == [0, 0], "\n".join(map(str, answers))
    # The second one says so: it followed the other's run, or found that over when its own was to begin.
    assert any("attached to it" in answer.err or "planned anew" in answer.err for answer in answers)
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
    assert [gpu["model"] for gpu in facts.host("gpu-01")["gpus"]] == ["H100", "H100"]
    assert facts.host("gpu-01")["cpu"]["threads"] == os.cpu_count()
    assert facts.host("gpu-01")["memory_bytes"] > 2**30
    assert facts.host("gpu-01")["nics"][0]["id"] == "15b3:1021"
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


MARK = """
from provision.resources.file import File
from provision.role import Role, Settings

ROLE = Role("mark", Settings, lambda settings, facts: [File("/run/mark", b"1")])
"""


def test_a_host_with_seven_of_eight_gpus_is_refused_alone(lab: Lab, tmp_path: Path) -> None:
    wrong, right = host(lab, "gpu-01"), host(lab, "gpu-02")
    document = lab_inventory()
    slots = [f"0000:{bus:02x}:00.0" for bus in SLOTS]
    document["gpu-nodes"]["vars"] |= {"mark": {}, "expect": {"gpus": {"model": "H100", "slots": slots}}}
    source = write_inventory(tmp_path, document)
    (tmp_path / "roles/mark").mkdir(parents=True)
    (tmp_path / "roles/mark/role.py").write_text(MARK)
    chosen = ("--roles", "mark")
    traces = "ls /run/provision /run/mark 2>/dev/null; cat /var/lib/provision/ours 2>/dev/null || :"
    before = shell(wrong, traces)
    try:
        wrong.remove_gpus(7)
        right.remove_gpus(8)
        answer = provision(*chosen, pattern="gpu-01,gpu-02", inventory=source)
        assert answer.code == 1, str(answer)
        assert answer.host("gpu-02")["status"] == "changed"
        assert answer.host("gpu-01")["error"]["message"] == (
            "not what was ordered: expects 8 GPUs of H100, has 7; none at 0000:db:00.0"
        )
        assert shell(wrong, traces) == before
        assert inv("plan", "--hosts", "gpu-02", *chosen, inventory=source).code == 0
        assert inv("plan", "--hosts", "gpu-01,gpu-02", *chosen, inventory=source).code == 1
    finally:
        for machine in (wrong, right):
            machine.remove_gpus(machine.gpu_count)
    shell(right, "rm /run/mark; sed -i '/^mark /d' /var/lib/provision/ours")


SLOW = """
from provision.resource import Handler
from provision.resources.file import File
from provision.role import Role, Settings

WAITS = "uncut sh -c 'until [ -e /run/go ]; do sleep 0.1; done'; [ -e /run/free ] || sleep 600"


def resources(settings, facts):
    one, two = File("/run/one", b"1"), File("/run/two", b"2")
    slow = Handler("wait", (one.id,), WAITS, shell=("shell/units.sh", "shell/packages.sh"))
    return one, slow, two


ROLE = Role("slow", Settings, resources)
"""


def test_a_run_is_stopped_between_two_steps_or_at_once_and_the_next_one_does_the_rest(
    lab: Lab, tmp_path: Path
) -> None:
    machine, document = host(lab, "gpu-01"), lab_inventory()
    document["_meta"]["hostvars"]["gpu-01"]["slow"] = {}
    source = write_inventory(tmp_path, document)
    (tmp_path / "roles/slow").mkdir(parents=True)
    (tmp_path / "roles/slow/role.py").write_text(SLOW)
    hosts = ("--hosts", "gpu-01")

    def begun() -> tuple[subprocess.Popen[str], str]:
        shell(machine, "rm -rf /run/one /run/two /run/go /run/provision")
        process = start("provision", *hosts, "--yes", "--json", "--roles", "slow", inventory=source)
        slow = "grep -q '^start 1 ' /run/provision/*/events"
        wait_for(lambda: machine.run(["sh", "-c", slow]).returncode == 0)
        found = inv("stop", *hosts, "--json", inventory=source).host("gpu-01")
        assert (found["status"], found["step"], found["resource"]) == ("running", 2, "handler:wait")
        return process, found["run"]

    def stopped(process: subprocess.Popen[str], run: str, *options: str) -> tuple[Answer, str]:
        stop = start("stop", "--run", run, *hosts, "--yes", *options, inventory=source)
        wait_for(lambda: machine.run(["test", "-e", f"/run/provision/{run}/stop"]).returncode == 0)
        time.sleep(1)
        assert stop.poll() is None, "it waits for the step, which changes packages"
        shell(machine, "touch /run/go")
        out, err = stop.communicate(timeout=60)
        told = Answer(process.wait(60), *process.communicate())
        assert (stop.returncode, told.code) == (0, 1), f"{out}{err}{told}"
        assert machine.run(["test", "-e", "/run/two"]).returncode == 1
        return Answer(0, out, err), told.host("gpu-01")["error"]["message"]

    shell(machine, "touch /run/free")
    process, run = begun()
    unasked = inv("stop", "--run", run, *hosts, inventory=source)
    assert (unasked.code, process.poll()) == (2, None), unasked
    said, told = stopped(process, run)
    assert re.fullmatch(rf"run {run} was stopped by \S+@\S+ after step 2/3", told), told
    assert "after step 2" in said.out
    assert inv("stop", "--run", run, *hosts, inventory=source).out == f"gpu-01: run {run} is over\n"

    shell(machine, "rm /run/free")
    said, told = stopped(*begun(), "--now")
    assert told.endswith(" in step 2/3, which was cut"), told
    assert "a package operation is under way" in said.err
    shell(machine, "touch /run/free")
    assert (
        provision("--roles", "slow", pattern="gpu-01", inventory=source).host("gpu-01")["status"] == "changed"
    )
    shell(machine, "rm -f /run/one /run/two; sed -i '/^slow /d' /var/lib/provision/ours")
