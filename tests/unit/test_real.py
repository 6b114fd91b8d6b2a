"""The acceptance of real machines: what it refuses, what it starts beside a unit, and how it sums up."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import cast

import pytest

from provision.errors import UsageError
from provision.roles.triton.instance import Instance
from provision.roles.triton.role import _unit
from provision.run.target import Target
from provision.shell import assembled
from tests.lab.verify_faults import FAULTS
from tests.real import acceptance, machine
from tests.real.report import Row, document, exit_code, table
from tests.unit import sandbox

IMAGE = "nvcr.io/nvidia/tritonserver:24.07-py3"


class UnitOnly:
    """A machine that has a unit file and answers nothing else."""

    name = "gpu-01"

    def __init__(self, text: str) -> None:
        self.text = text

    def told(self, *_: object) -> list[str]:
        return self.text.split("\n")


def served(instance: Instance) -> machine.Served:
    unit = UnitOnly(_unit("main", instance, 2))
    return machine.Served(cast("machine.Machine", unit), "main", instance)


def test_a_plain_container_is_given_all_that_the_unit_gives_and_none_of_what_makes_it_a_unit() -> None:
    instance = Instance(
        image=IMAGE, gpus=[1], env={"A": "1"}, mounts=["/srv/x:/x:ro"], args=["--log-verbose=1"]
    )
    command = served(instance).bare_command()
    assert command[:4] == ["docker", "run", "--detach", f"--name={machine.BARE}"]
    assert {"--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=1", "--env=A", "--volume=/srv/x:/x:ro"} < {
        *command
    }
    assert "--publish=127.0.0.1:8000:8000" in command
    assert not {"--init", "--rm", "--name=triton-main", "--label=provision.instance=main"} & {*command}
    assert command[command.index(IMAGE) + 1] == "tritonserver"
    assert command[-1] == "--log-verbose=1"


def test_without_an_inventory_nothing_is_tried() -> None:
    with pytest.raises(UsageError, match="which machines"):
        acceptance.run("", "all", yes=True, as_json=False)


@pytest.mark.parametrize("title", acceptance.BREAKS)
def test_what_is_broken_is_known_to_the_catalogue_of_faults(title: str) -> None:
    its = acceptance.BREAKS[title].of(served(Instance(image=IMAGE)))
    assert any(fault.check == its.check and its.resource in fault.plan for fault in FAULTS.values())
    assert "UNIT" not in its.breaks + its.check + its.resource


def what_runs(folder: Path, process: str, units: str = "") -> list[str]:
    """What is said of a machine where only this process runs, and systemd lists these units."""
    program = folder / process
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    script = assembled("triton/http.sh") + (machine.HERE / "host.sh").read_text("utf-8")
    script += f"systemctl() {{ printf '{units}'; }}\n{program} 9 & sleep 0.2\nwhat_runs"
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(bool(sandbox.missing()), reason="no namespaces here")
def test_a_machine_where_a_container_or_a_server_runs_is_in_use(tmp_path: Path) -> None:
    assert what_runs(tmp_path, "sleep") == []
    (container,) = what_runs(tmp_path, "containerd-shim")
    assert container.startswith("a container runs: containerd-shim, process ")
    (server,) = what_runs(tmp_path, "tritonserver")
    assert server.startswith("a tritonserver runs: process ")
    unit = "tritonserver-old.service loaded activating auto-restart x\\n"
    assert what_runs(tmp_path, "sleep", unit) == ["the unit tritonserver-old.service is activating"]


def test_the_table_has_a_line_for_each_thing_and_one_failure_is_enough() -> None:
    rows = [
        Row("gpu-01", "provision", "pass", "29 changes", seconds=12.345),
        Row("gpu-01", "start to ready", "skip", "because", "main"),
    ]
    assert table(rows).split("\n") == [
        "gpu-01",
        "  pass  provision               12.35 s  29 changes",
        "  skip  main: start to ready             because",
        "",
        "1 pass, 0 fail, 1 skip",
    ]
    assert (exit_code(rows), exit_code(rows[1:]), exit_code([])) == (0, 1, 1)
    failed = [*rows, Row("gpu-02", "provision", "fail", "no")]
    assert exit_code(failed) == 1
    assert document(failed)["summary"] == {"pass": 1, "fail": 1, "skip": 1}
    assert document(failed)["hosts"]["gpu-02"][0]["said"] == "no"


def test_a_host_that_does_not_come_to_serving_is_left_there() -> None:
    """The rows end with the failure of provision: nothing is broken on a host that does not serve."""

    class Failing(acceptance.Commands):
        def run(self, task: str, *_: str, **__: bool) -> tuple[int, dict[str, object]]:
            assert task == "provision"
            return 1, {"error": {"message": "apt is locked", "hint": "wait"}, "changes": [], "seconds": 1.0}

    class Told:
        def told(self, *_: object) -> list[str]:
            return ["boot", "1.0"]

        class connection:  # noqa: N801
            close = staticmethod(lambda: None)

    class Named:
        name = "gpu-01"

    tried = acceptance.Acceptance(
        Failing("x", "gpu-01"),
        cast("Target", Named()),
        cast("machine.Machine", Told()),
        lambda _: None,
    )
    (row,) = tried.rows()
    assert (row.verdict, row.said) == ("fail", "apt is locked; hint: wait")
