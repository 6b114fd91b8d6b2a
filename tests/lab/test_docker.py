"""Docker on real hosts: what dockerd refuses goes back, and nothing stops that nobody allowed to stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import INVENTORY, Answer, inv, lab_inventory, write_inventory
from tests.lab.test_provision import converged, host, image, provision, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

__all__ = ["converged"]

DAEMON_JSON = "/etc/docker/daemon.json"
BEFORE = "/var/lib/provision/docker/before"


@pytest.fixture
def machine(converged: Lab, tmp_path: Path) -> Iterator[LabHost]:
    """A converged Debian 12 host, whose dockerd cannot validate a file; it is converged again afterwards."""
    found = host(converged, "gpu-01")
    yield found
    shell(
        found, "docker rm --force other legacy >/dev/null 2>&1; rm -rf /etc/systemd/system/docker.service.d"
    )
    shell(found, "systemctl daemon-reload")
    answer = run(settings(tmp_path / "as-it-was", "allowed"))
    assert answer.code == 0, str(answer)


def settings(folder: Path, restart: str = "when-idle", **daemon: Any) -> Path:
    """The lab's inventory with further keys of daemon.json."""
    document = lab_inventory()
    docker = document["gpu-nodes"]["vars"]["docker"]
    docker["restart"] = restart
    docker["daemon"] |= {key.replace("_", "-"): value for key, value in daemon.items()}
    return write_inventory(folder, document)


def run(inventory: Path = INVENTORY, name: str = "gpu-01") -> Answer:
    """The roles docker and triton on a host."""
    return provision("--roles", "docker,triton", pattern=name, inventory=inventory)


def error_of(answer: Answer, name: str = "gpu-01") -> tuple[str, str]:
    """What the error of a host says, and its hint."""
    assert answer.code == 1, str(answer)
    error = answer.host(name)["error"]
    return f"{error['message']}\n{error['stderr'] or ''}", error["hint"] or ""


def document(machine: LabHost) -> dict[str, Any]:
    """daemon.json of a host."""
    found: dict[str, Any] = json.loads(shell(machine, f"cat {DAEMON_JSON}"))
    return found


def other_container(machine: LabHost) -> str:
    """Start a container that is none of ours; its id."""
    return shell(
        machine,
        f"docker run --detach --name=other --stop-timeout=1 --runtime=runc --entrypoint=sleep {image()} 900",
    ).strip()


def is_running(machine: LabHost, container: str) -> bool:
    return machine.run(["docker", "top", container]).returncode == 0


def test_a_file_that_dockerd_refuses_goes_back(machine: LabHost, tmp_path: Path) -> None:
    """Debian 12's dockerd cannot tell before: it is started with the file, then with the previous one."""
    before = shell(machine, f"cat {DAEMON_JSON}")
    said, _ = error_of(run(settings(tmp_path, "allowed", storage_driver="nonsense")))
    assert "driver not supported" in said
    assert "the previous one is back, and docker runs with it" in said
    assert shell(machine, f"cat {DAEMON_JSON}") == before
    shell(machine, f"systemctl is-active docker.service && [ ! -e {BEFORE} ]")
    assert shell(
        machine, "find /var/backups/provision -name daemon.json.refused -exec cat {} + | grep nonsense"
    )

    planned = inv(
        "plan", "--hosts", "gpu-01", "--json", inventory=settings(tmp_path, storage_driver="nonsense")
    )
    assert f"file:{DAEMON_JSON}" in {row["resource"] for row in planned.host("gpu-01")["changes"]}
    repaired = settings(tmp_path, "allowed", log_opts={"max-size": "10m"})
    assert run(repaired).code == 0
    assert document(machine)["log-opts"] == {"max-size": "10m"}
    assert run(repaired).host("gpu-01")["changes"] == []

    assert run(settings(tmp_path, "allowed")).code == 0
    assert shell(machine, f"cat {DAEMON_JSON}") == before


def test_dockerd_that_does_not_come_back_is_told(machine: LabHost, tmp_path: Path) -> None:
    """Whatever it reads: the previous file is there, and once the cause is gone the next run converges."""
    before = shell(machine, f"cat {DAEMON_JSON}")
    folder = "/etc/systemd/system/docker.service.d"
    shell(
        machine, f"mkdir -p {folder} && printf '[Service]\\nExecStartPre=/bin/false\\n' >{folder}/broken.conf"
    )
    shell(machine, "systemctl daemon-reload")
    inventory = settings(tmp_path, "allowed", log_opts={"max-size": "7m"})
    said, _ = error_of(run(inventory))
    assert "Control process exited, code=exited, status=1/FAILURE" in said
    assert "nor as before: the previous one is back" in said
    assert shell(machine, f"cat {DAEMON_JSON}") == before
    shell(machine, f"rm -r {folder} && systemctl daemon-reload")
    again = run(inventory)
    assert again.code == 0, str(again)
    shell(machine, "systemctl is-active docker.service triton@main.service")
    assert document(machine)["log-opts"] == {"max-size": "7m"}


def test_a_reload_that_dockerd_refuses_goes_back(machine: LabHost, tmp_path: Path) -> None:
    started = shell(machine, "systemctl show -p ExecMainStartTimestampMonotonic docker.service")
    before = shell(machine, f"cat {DAEMON_JSON}")
    said, _ = error_of(run(settings(tmp_path, labels=["rack=1", "rack=2"])))
    assert "conflict labels for rack=" in said
    assert shell(machine, f"cat {DAEMON_JSON}") == before
    assert shell(machine, "systemctl show -p ExecMainStartTimestampMonotonic docker.service") == started
    assert run().host("gpu-01")["changes"] == []


def test_dockerd_that_validates_is_asked_before(converged: Lab, tmp_path: Path) -> None:
    """Debian 13's: nothing is put in place, and nothing restarts."""
    machine = host(converged, "gpu-03")
    started = shell(machine, "systemctl show -p ExecMainStartTimestampMonotonic docker.service")
    before = shell(machine, f"cat {DAEMON_JSON}")
    said, _ = error_of(run(settings(tmp_path, "allowed", no_such_key=1), "gpu-03"), "gpu-03")
    assert "don't match any configuration option: no-such-key" in said
    assert shell(machine, f"cat {DAEMON_JSON}") == before
    assert shell(machine, "systemctl show -p ExecMainStartTimestampMonotonic docker.service") == started
    again = run(name="gpu-03")
    assert (again.code, again.host("gpu-03")["changes"]) == (0, []), "a refused file leaves no restart behind"


def test_a_restart_that_stops_a_container_takes_permission(machine: LabHost, tmp_path: Path) -> None:
    container = other_container(machine)
    before = shell(machine, f"cat {DAEMON_JSON}")
    said, hint = error_of(run(settings(tmp_path, log_opts={"max-size": "5m"})))
    assert "restart of Docker needed" in said
    assert f"container other ({image()}) stops, and stays stopped" in said
    assert f"container triton-main ({image()}) stops, and triton@main.service starts it again" in said
    assert "docker.restart: allowed" in hint
    assert shell(machine, f"cat {DAEMON_JSON}") == before, "a file that is not loaded is not left there"
    assert is_running(machine, container)

    done = run(settings(tmp_path, "allowed", log_opts={"max-size": "5m"}))
    assert done.code == 0, str(done)
    assert not is_running(machine, container)
    shell(machine, "systemctl is-active triton@main.service")


def test_a_toolkit_installed_by_itself_leaves_dockers_restart_owed(machine: LabHost, tmp_path: Path) -> None:
    shell(
        machine,
        "apt-mark -q unhold nvidia-container-toolkit; apt-get purge -qq -y nvidia-container-toolkit"
        " && systemctl restart docker",
    )
    alone = provision("--roles", "toolkit", pattern="gpu-01")
    assert alone.code == 0, str(alone)
    assert "restart docker.service: owed, and not part of this run" in str(alone.host("gpu-01")["notes"])
    later = inv("plan", "--hosts", "gpu-01", "--json").host("gpu-01")
    assert "handler:restart docker.service" in {row["resource"] for row in later["changes"]}
    assert run(settings(tmp_path, "allowed")).code == 0
    assert "owed" not in str(inv("plan", "--hosts", "gpu-01", "--json").host("gpu-01")["notes"])


def test_with_live_restore_containers_go_on(machine: LabHost, tmp_path: Path) -> None:
    """It is enabled by a reload before the restart that the other key takes."""
    container = other_container(machine)
    shell(machine, "systemctl stop triton@main.service")
    inventory = settings(tmp_path, live_restore=True, log_opts={"max-size": "6m"})
    plan = inv("plan", "--roles", "docker", "--hosts", "gpu-01", inventory=inventory)
    assert "container other" in plan.out
    assert "keeps running (live-restore)" in plan.out
    answer = provision("--roles", "docker", pattern="gpu-01", inventory=inventory)
    assert answer.code == 0, str(answer)
    assert "handler:restart docker.service" in {row["resource"] for row in answer.host("gpu-01")["changes"]}
    assert is_running(machine, container)


def test_a_flag_of_the_unit_is_a_conflict(machine: LabHost, tmp_path: Path) -> None:
    override = "/etc/systemd/system/docker.service.d/flags.conf"
    unit = "[Service]\\nExecStart=\\nExecStart=/usr/sbin/dockerd -H fd:// --log-level=warn\\n"
    shell(
        machine,
        f"mkdir -p {override.rpartition('/')[0]} && printf '{unit}' >{override} && systemctl daemon-reload",
    )
    said, hint = error_of(run(settings(tmp_path, log_level="debug")))
    assert f"{override} starts dockerd with --log-level" in said
    assert f"take --log-level out of {override}" in hint
    assert "log-level" not in document(machine)


def test_a_container_of_the_legacy_hook_is_warned_of_and_missed(machine: LabHost) -> None:
    """A daemon-reload takes its GPUs away; a container of the nvidia runtime keeps them."""
    shell(
        machine,
        "docker run --detach --name=legacy --stop-timeout=1 --runtime=runc --gpus=all"
        f" --entrypoint=sleep {image()} 900 && docker exec legacy nvidia-smi -L",
    )
    shell(machine, "rm /etc/systemd/system/triton@main.service")
    said, _ = error_of(run())
    assert f"no longer see their GPUs: legacy ({image()}); re-create them, with --runtime=nvidia" in said
    assert machine.run(["docker", "exec", "legacy", "nvidia-smi", "-L"]).returncode == 255
    shell(machine, "docker exec triton-main nvidia-smi -L && rm /etc/systemd/system/triton@main.service")
    plan = inv("plan", "--hosts", "gpu-01")
    assert f"container legacy ({image()}) does not see its GPUs even now: re-create it" in plan.out
    assert run().code == 0, "what was lost before is not held against the next run"


def test_an_engine_that_the_settings_do_not_want_is_refused(machine: LabHost, tmp_path: Path) -> None:
    inventory = lab_inventory()
    inventory["gpu-nodes"]["vars"]["docker"]["packages"] = {"moby-engine": None}
    said, hint = error_of(run(write_inventory(tmp_path, inventory)))
    assert "docker.io is installed here" in said
    assert "to replace it would stop its containers" in said
    assert "docker.source: none" in hint
    inventory["gpu-nodes"]["vars"]["docker"] |= {"packages": None, "source": "none"}
    assert run(write_inventory(tmp_path, inventory)).host("gpu-01")["changes"] == []
