"""A host that the previous release provisioned is planned by this one without a surprise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import ROOT, inv, lab_inventory, write_inventory
from tests.lab.test_provision import host, shell

pytestmark = pytest.mark.lab

NAME = "gpu-02"
PREVIOUS = "e1b7ce7aaf3b86efc15440e7dd6a61be931e0760"
"""The commit of the previous release."""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The previous release's files, out of git."""
    folder = tmp_path_factory.mktemp("previous")
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    archive = folder / "files.tar"
    made = subprocess.run(["git", "archive", "--output", archive, PREVIOUS], cwd=ROOT, check=False)
    if made.returncode:
        pytest.skip("this checkout does not have the commit of the previous release")
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder


def both(lab: Lab) -> dict[str, Any]:
    """Settings that both releases take, whose repository stands where the lab's mirror has it."""
    document = lab_inventory()
    variables = document["gpu-nodes"]["vars"]
    mirror = variables.pop("mirror")
    repo = {
        "uri": f"{mirror['base'].removesuffix('/mirror')}/nvidia",
        "key": mirror["key"],
        "fingerprint": mirror["fingerprint"],
    }
    variables["driver"] |= {"source": "cuda", "version": "580.159.04-1", "repo": repo}
    variables["toolkit"] = {"version": "1.20.0-1", "repo": repo}
    return document


@pytest.fixture(scope="module")
def inventory(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those settings, and that no model is expected, which only this release takes."""
    return write_inventory(tmp_path_factory.mktemp("this"), both(lab))


@pytest.fixture(scope="module")
def machine(lab: Lab, previous: Path) -> LabHost:
    """A bare host that the previous release provisioned."""
    document = both(lab)
    for instance in document["gpu-nodes"]["vars"]["triton"]["instances"].values():
        instance.pop("expect")
    inventory = write_inventory(previous / "inventory", document)
    bare = host(lab, NAME)
    bare.reset()
    argv = [sys.executable, "tasks.py", "provision", "--hosts", NAME, "--inventory", str(inventory), "--yes"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    ran = subprocess.run(argv, cwd=previous, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return bare


def test_it_is_brought_to_this_release_and_serves_all_the_while(machine: LabHost, inventory: Path) -> None:
    container = shell(machine, "docker inspect -f '{{.Id}} {{.State.StartedAt}}' triton-main")
    plan = inv("plan", "--hosts", NAME, "--json", inventory=inventory)
    assert plan.code in (0, 3), str(plan)
    # Units and gates may be written anew; nothing of packages, Docker or the driver changes.
    kinds = {row["resource"].partition(":")[0] for row in plan.host(NAME)["changes"]}
    assert kinds <= {"file", "handler", "service", "gpus-in-containers", "leftovers"}, str(plan)
    moved = inv("provision", "--hosts", NAME, "--yes", inventory=inventory)
    assert moved.code == 0, str(moved)
    assert shell(machine, "docker inspect -f '{{.Id}} {{.State.StartedAt}}' triton-main") == container
    again = inv("plan", "--hosts", NAME, "--json", inventory=inventory)
    assert again.code == 0, str(again)


def test_it_is_proven_by_this_release(machine: LabHost, inventory: Path) -> None:
    verified = inv("verify", "--hosts", NAME, inventory=inventory)
    assert verified.code == 0, str(verified)


def test_what_the_previous_release_remembered_is_ours(machine: LabHost, inventory: Path) -> None:
    """Holds and keys of daemon.json are known as ours: a change takes them back."""
    document = lab_inventory()
    variables = document["gpu-nodes"]["vars"]
    variables["toolkit"] = {"version": "1.19.1-1"}
    source = write_inventory(inventory.parent / "changed", document)
    answer = inv("plan", "--hosts", NAME, "--json", inventory=source)
    assert answer.code == 3, str(answer)
    moved = next(row for row in answer.host(NAME)["changes"] if row["resource"] == "packages:toolkit")
    assert moved["action"] == "downgrade"
