"""The main job on real hosts: bare to serving, nothing to do again, drift repaired, faults survived."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from lab.proxy import Proxy
from tests.lab.cli import INVENTORY, Answer, inv, lab_inventory, start, write_inventory

pytestmark = pytest.mark.lab

IMPORT = ["python3", "-c", "import tensorrt_llm"]
LISTING = (
    "find /etc /usr /var/lib/dpkg -xdev -printf '%p %y %m %u %g %s %T@ %l\\n' | sort;"
    " find /etc /var/lib/dpkg -xdev -type f -exec sha256sum {} + | sort"
)


def host(lab: Lab, name: str) -> LabHost:
    """A host of the lab by name."""
    return next(h for h in lab.hosts if h.name == name)


def shell(machine: LabHost, script: str) -> str:
    """Run a script as root on a host, out of band; its output."""
    done = machine.run(["sh", "-c", script])
    assert done.returncode == 0, f"{script}: {done.stdout} {done.stderr}"
    return done.stdout


def image() -> str:
    """The image that the lab's inventory serves."""
    instances = lab_inventory()["gpu-nodes"]["vars"]["triton"]["instances"]
    return str(instances["main"]["image"])


def provision(*arguments: str, pattern: str = "gpu-nodes", inventory: Path = INVENTORY) -> Answer:
    """``inv provision --yes --json``."""
    return inv("provision", "--hosts", pattern, "--yes", "--json", *arguments, inventory=inventory)


@pytest.fixture(scope="module")
def converged(lab: Lab) -> Lab:
    """All hosts provisioned; a fault of an earlier test is repaired on the way."""
    answer = provision()
    assert answer.code == 0, str(answer)
    return lab


def test_without_the_driver_the_import_fails_and_after_provision_it_works(lab: Lab) -> None:
    machine = host(lab, "gpu-01")
    machine.reset()
    registry = image().split("/", maxsplit=1)[0]
    shell(
        machine,
        "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends"
        f" docker.io tini && mkdir -p /etc/docker"
        f' && echo \'{{"insecure-registries": ["{registry}"]}}\' >/etc/docker/daemon.json'
        f" && systemctl restart docker && docker pull --quiet {image()}",
    )
    before = machine.run(["docker", "run", "--rm", image(), *IMPORT])
    assert before.returncode == 1
    assert "NVMLError_LibraryNotFound: NVML Shared Library Not Found" in before.stderr

    answer = provision(pattern="gpu-01")

    assert answer.code == 0, str(answer)
    after = machine.run(["docker", "run", "--rm", image(), *IMPORT])
    assert after.returncode == 0, after.stderr


def test_check_and_plan_change_nothing_on_a_bare_host(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    before = shell(machine, LISTING)
    check = inv("provision", "--hosts", "gpu-02", "--check", "--json")
    plan = inv("plan", "--hosts", "gpu-02", "--json")
    assert (check.code, plan.code) == (3, 3), f"{check}\n{plan}"
    assert len(plan.host("gpu-02")["changes"]) > 10
    assert any("+++ /etc/docker/daemon.json" in row["diff"] for row in plan.host("gpu-02")["changes"])
    assert shell(machine, LISTING) == before


def test_the_second_run_does_nothing_in_one_connection_and_one_exec(converged: Lab) -> None:
    answer = provision()
    assert answer.code == 0, str(answer)
    for name in (h.name for h in converged.hosts):
        found = answer.host(name)
        assert (found["status"], found["changes"]) == ("ok", [])
        assert found["connects"] == 1
        assert found["execs"] == 1


DRIFT: dict[str, tuple[str, set[tuple[str, str]], str]] = {
    "a key of daemon.json": (
        'sed -i \'s/"default-runtime": "nvidia"/"default-runtime": "runc"/\' /etc/docker/daemon.json',
        {("file:/etc/docker/daemon.json", "update"), ("handler:reload docker.service", "run")},
        'grep -q \'"default-runtime": "nvidia"\' /etc/docker/daemon.json',
    ),
    "the unit edited": (
        "sed -i 's/RestartSec=10/RestartSec=99/' /etc/systemd/system/triton@main.service",
        {
            ("file:/etc/systemd/system/triton@main.service", "update"),
            ("handler:reload systemd", "run"),
        },
        "grep -q RestartSec=10 /etc/systemd/system/triton@main.service"
        " && [ $(systemctl show -p NeedDaemonReload --value triton@main.service) = no ]",
    ),
    "docker stopped": (
        "systemctl stop docker.socket docker.service",
        {("service:docker.service", "start"), ("service:triton@main.service", "start")},
        "systemctl is-active docker.service triton@main.service",
    ),
    "the toolkit removed": (
        # Docker has to be restarted then, which it is only where no container runs.
        "systemctl stop triton@main.service; DEBIAN_FRONTEND=noninteractive apt-get -q -y"
        " --allow-change-held-packages remove nvidia-container-toolkit",
        {
            ("packages:toolkit", "install"),
            ("handler:restart docker.service", "run"),
            ("service:triton@main.service", "start"),
        },
        "dpkg -s nvidia-container-toolkit | grep -q 'Status: hold ok installed'",
    ),
    "files of packages deleted and changed": (
        "rm /usr/bin/nvidia-container-runtime; echo x >>$(ls /usr/lib/*/libnvidia-ml.so.*.*)",
        {
            ("packages:driver", "repair"),
            ("packages:toolkit", "repair"),
            ("handler:refresh the CDI spec", "run"),
        },
        "test -x /usr/bin/nvidia-container-runtime && nvidia-smi",
    ),
    "the blacklist deleted": (
        "rm /etc/modprobe.d/provision-nouveau.conf",
        {
            ("file:/etc/modprobe.d/provision-nouveau.conf", "create"),
            ("initramfs:/etc/modprobe.d/provision-nouveau.conf", "rebuild"),
        },
        "grep -q '^blacklist nouveau' /etc/modprobe.d/provision-nouveau.conf",
    ),
    "the container killed": (
        "docker rm -f triton-main; sleep 1",
        {("service:triton@main.service", "start")},
        "systemctl is-active triton@main.service && docker inspect triton-main >/dev/null",
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_planned_and_repaired(converged: Lab, name: str) -> None:
    harm, expected, repaired = DRIFT[name]
    machine = host(converged, "gpu-01")
    shell(machine, harm)

    plan = inv("plan", "--hosts", "gpu-01", "--json")
    assert plan.code == 3, str(plan)
    seen = {(row["resource"], row["action"]) for row in plan.host("gpu-01")["changes"]}
    assert expected <= seen, str(plan)
    assert len(seen) <= len(expected) + 2, f"the plan does more than repair: {seen - expected}"

    answer = provision(pattern="gpu-01")
    assert answer.code == 0, str(answer)
    shell(machine, repaired)
    assert provision(pattern="gpu-01").host("gpu-01")["changes"] == []


def test_a_users_keys_in_daemon_json_stay(converged: Lab) -> None:
    machine = host(converged, "gpu-01")
    shell(machine, 'sed -i \'1a \\    "log-opts": {"max-size": "10m"},\' /etc/docker/daemon.json')
    shell(machine, 'sed -i \'/default-runtime/s/"nvidia"/"runc"/\' /etc/docker/daemon.json')
    assert provision(pattern="gpu-01").code == 0
    text = shell(machine, "cat /etc/docker/daemon.json")
    assert '"max-size": "10m"' in text
    assert '"default-runtime": "nvidia"' in text
    assert shell(machine, "find /var/backups/provision -name daemon.json").strip()


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until ``what`` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.2)


def running(machine: LabHost) -> bool:
    """Whether a plan is being carried out on the host."""
    check = "[ -s /run/provision/lock ] && ! flock -n -s /run/provision/lock true"
    return machine.run(["sh", "-c", check]).returncode == 0


def test_a_killed_controller_interrupts_nothing(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    roles = ("--roles", "driver,toolkit")
    process = start("provision", "--hosts", "gpu-02", "--yes", *roles)
    wait_for(lambda: running(machine))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert running(machine), "the run ended with its controller"

    answer = provision(*roles, pattern="gpu-02")

    assert "attached to it" in answer.err
    assert answer.code == 0, str(answer)
    assert provision(*roles, pattern="gpu-02").host("gpu-02")["changes"] == []
    runs = shell(machine, "ls /run/provision").split()
    assert len(runs) <= 2, f"the plan was carried out more than once: {runs}"


def test_a_dropped_connection_is_taken_up_again(lab: Lab, tmp_path: Path) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    document = lab_inventory()
    with Proxy(machine.address, 22) as proxy:
        document["_meta"]["hostvars"]["gpu-02"] |= {"ansible_host": "127.0.0.1", "ansible_port": proxy.port}
        source = write_inventory(tmp_path, document)
        process = start("provision", "--hosts", "gpu-02", "--yes", "--json", inventory=source)
        wait_for(lambda: running(machine))
        time.sleep(1)
        proxy.cut()
        out, err = process.communicate(timeout=600)
    answer = Answer(process.returncode, out, err)
    assert answer.code == 0, str(answer)
    assert answer.host("gpu-02")["status"] == "changed"
    assert answer.host("gpu-02")["connects"] > 1
    assert provision(pattern="gpu-02").host("gpu-02")["changes"] == []


def test_one_unreachable_and_one_failing_host_do_not_stop_the_third(converged: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    document["_meta"]["hostvars"]["gpu-01"] |= {"ansible_host": "127.0.0.1", "ansible_port": 9}
    machine = host(converged, "gpu-02")
    shell(machine, "cp /etc/docker/daemon.json /root/good && echo '{ \"a\": 1, }' >/etc/docker/daemon.json")
    shell(host(converged, "gpu-03"), "rm /etc/modprobe.d/provision-nouveau.conf")
    try:
        answer = inv(
            "provision",
            "--hosts",
            "gpu-nodes",
            "--yes",
            "--json",
            inventory=write_inventory(tmp_path, document),
        )
        assert answer.code == 1, str(answer)
        assert answer.host("gpu-01")["status"] == "unreachable"
        assert answer.host("gpu-02")["status"] == "failed"
        assert "/etc/docker/daemon.json:1: not JSON" in answer.host("gpu-02")["error"]["message"]
        assert answer.host("gpu-02")["error"]["hint"]
        assert answer.host("gpu-03")["status"] == "changed"

        text = inv("provision", "--hosts", "gpu-nodes", "--yes", inventory=tmp_path / "hosts")
        assert "gpu-01 : " in text.out
        assert "unreachable=1" in text.out
        assert "gpu-02: failed: /etc/docker/daemon.json:1: not JSON" in text.out
        assert shell(machine, "cat /etc/docker/daemon.json") == '{ "a": 1, }\n'
    finally:
        shell(machine, "cp /root/good /etc/docker/daemon.json")
        assert provision().code == 0


def test_a_saved_plan_is_applied_and_a_host_that_differs_is_refused_alone(
    converged: Lab, tmp_path: Path
) -> None:
    machines = [host(converged, name) for name in ("gpu-01", "gpu-02")]
    saved, gates = str(tmp_path / "plan.json"), "/usr/local/lib/provision"
    for machine in machines:
        shell(machine, f"chmod 600 {gates}/triton-mounts")
    planned = inv("plan", "--hosts", "gpu-01,gpu-02", "--out", saved)
    assert planned.code == 3, str(planned)
    assert Path(saved).stat().st_mode & 0o777 == 0o600

    shell(machines[0], f"chmod 600 {gates}/triton-gpu-gate")
    for arguments in (["--roles", "docker"], ["--hosts", "gpu-03"]):
        other = inv("provision", "--plan", saved, "--yes", *arguments)
        assert other.code == 2
        for name in ("gpu-01", "gpu-02"):
            assert f"{name}: approved, and no part of this run: write {gates}/triton-mounts" in other.err
    stale = inv("provision", "--plan", saved, "--yes", "--json")
    assert stale.code == 1, str(stale)
    assert (stale.host("gpu-01")["status"], stale.host("gpu-02")["status"]) == ("failed", "changed")
    message = stale.host("gpu-01")["error"]["message"]
    assert message.startswith("1 difference from the approved plan (the settings are the same): new: write ")
    assert f"new: write {gates}/triton-gpu-gate" in message
    assert inv("provision", "--plan", saved, "--hosts", "gpu-01", "--yes").code == 2

    shell(machines[0], f"chmod 755 {gates}/triton-gpu-gate")
    last = inv("provision", "--plan", saved, "--yes", "--json")
    assert last.code == 0, str(last)
    assert (last.host("gpu-01")["status"], last.host("gpu-02")["status"]) == ("changed", "ok")


def test_secrets_are_readable_by_root_alone_and_shown_to_nobody(converged: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    secret = 's3cret-"value" with $PATH, %n and a\nsecond line'
    document["gpu-nodes"]["vars"]["triton"]["instances"]["main"]["env"] = {"HF_TOKEN": secret}
    source = write_inventory(tmp_path, document)
    machine = host(converged, "gpu-01")
    plan = inv("plan", "--hosts", "gpu-01", "--out", str(tmp_path / "saved"), inventory=source)
    assert "s3cret" not in plan.out + plan.err + (tmp_path / "saved").read_text()
    answer = provision(pattern="gpu-01", inventory=source)
    assert answer.code == 0, str(answer)
    assert "s3cret" not in answer.out + answer.err
    assert shell(machine, "stat -c %a /etc/triton/main.env").strip() == "600"
    assert machine.run(["grep", "-r", "s3cret", "/proc/1/environ"]).returncode != 0
    assert machine.run(["sh", "-c", "ps axww | grep -v grep | grep s3cret"]).returncode == 1
    seen = shell(
        machine, 'docker exec triton-main python3 -c \'import os; print(os.environ["HF_TOKEN"], end="")\''
    )
    assert seen == secret
    assert provision(pattern="gpu-01").code == 0


def test_another_driver_is_loaded_in_place_where_nothing_uses_it(converged: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    document["gpu-nodes"]["vars"]["driver"] |= {"branch": 570, "version": "570.211.01-1"}
    source = write_inventory(tmp_path, document)
    machine = host(converged, "gpu-01")
    for inventory, version in ((source, "570.211.01"), (INVENTORY, "580.159.04")):
        shell(machine, "systemctl stop triton@main.service")
        answer = provision("--allow-branch-change", pattern="gpu-01", inventory=inventory)
        assert answer.code == 0, str(answer)
        assert answer.host("gpu-01")["reboots"] == 0
        assert shell(machine, "cat /sys/module/nvidia/version").strip() == version
        assert shell(machine, "nvidia-smi -L").count("GPU-") == 2


def test_an_instance_that_the_settings_no_longer_name_goes(converged: Lab, tmp_path: Path) -> None:
    document = lab_inventory()
    instances = document["gpu-nodes"]["vars"]["triton"]["instances"]
    instances["other"] = instances["main"] | {"http_port": 9000, "grpc_port": 9001, "metrics_port": 9002}
    machine = host(converged, "gpu-01")
    both = provision(pattern="gpu-01", inventory=write_inventory(tmp_path, document))
    assert both.code == 0, str(both)
    shell(machine, "systemctl is-active triton@main.service triton@other.service")
    plan = inv("plan", "--hosts", "gpu-01", "--json")
    assert plan.host("gpu-01")["changes"][0]["impact"] == [
        "triton@other.service is running and will be stopped"
    ]
    one = provision(pattern="gpu-01")
    assert [(row["resource"], row["action"]) for row in one.host("gpu-01")["changes"]] == [
        ("no-other-units:triton", "remove"),
        ("gpus-in-containers:triton", "check"),
    ]
    shell(machine, "! systemctl is-active triton@other.service && ! docker inspect triton-other")
    shell(machine, "systemctl is-active triton@main.service")
    assert provision(pattern="gpu-01").host("gpu-01")["changes"] == []


def test_an_image_that_cannot_be_pulled_leaves_its_server_able_to_start_again(
    converged: Lab, tmp_path: Path
) -> None:
    document = lab_inventory()
    instances = document["gpu-nodes"]["vars"]["triton"]["instances"]
    instances["main"] |= {"image": image().replace(":24.07-", ":24.99-")}
    instances["renamed"] = instances.pop("main")
    machine = host(converged, "gpu-01")
    unit = shell(machine, "cat /etc/systemd/system/triton@main.service")
    answer = provision(pattern="gpu-01", inventory=write_inventory(tmp_path, document))
    assert answer.code == 1, str(answer)
    assert answer.host("gpu-01")["error"]["resource"].startswith("image:")
    assert answer.host("gpu-01")["changes"] == []
    assert shell(machine, "cat /etc/systemd/system/triton@main.service") == unit
    shell(machine, "systemctl restart triton@main.service")
    assert provision(pattern="gpu-01").host("gpu-01")["changes"] == []
