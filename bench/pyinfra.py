"""A whole run with nothing to do, start-up included, beside pyinfra with the same end state.

pyinfra is told to have the same files, packages and units, which it finds in place too. It has a virtual
environment of its own in the cache, since the project itself has no use for it. Both commands run in turn, in
rounds, so that the machine's noise hits both; the ratio of the medians is what counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.layout import cache_root
from provision.connection import Connection
from provision.errors import ProvisionError
from provision.inventory import sources
from provision.plan.declared import declare
from provision.resources.packages.sets import PackageSet
from provision.resources.service import Service
from provision.roles import all_roles
from provision.run.fleet import targets
from provision.run.host import ask_facts
from provision.run.target import Target

PINNED = "pyinfra==3.10.0"
ROUNDS = 5
ROOT = Path(__file__).resolve().parents[1]

DEPLOY = """\
import json
from pyinfra import host
from pyinfra.operations import apt, files, systemd
wanted = host.data.wanted
for path, local, mode in wanted["files"]:
    files.put(src=local, dest=path, mode=mode, _sudo=True)
apt.packages(packages=wanted["packages"], _sudo=True)
for unit in wanted["units"]:
    systemd.service(service=unit, running=True, enabled=True, _sudo=True)
"""


def run(out: Callable[[str], None], inventory: Path, pattern: str = "gpu-nodes", rounds: int = ROUNDS) -> int:
    """Measure on all hosts of ``pattern`` and print both medians and their ratio.

    :raises ProvisionError: if one of the commands fails.
    """
    hosts, _ = targets(sources.load([inventory]).select(pattern), all_roles())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, hosts)
        ways = {
            "ours": [
                *(sys.executable, str(ROOT / "tasks.py"), "provision", "--hosts", pattern, "--yes"),
                *("--inventory", str(inventory)),
            ],
            "pyinfra": [str(_program()), "--yes", str(folder / "inventory.py"), str(folder / "deploy.py")],
        }
        # As in an activated environment: python3, which the inventory asks for, may be a slow wrapper.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        walls: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, argv in ways.items():
                began = time.perf_counter()
                done = subprocess.run(
                    argv,
                    cwd=folder,
                    env=os.environ | {"PATH": path},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                walls[way].append(time.perf_counter() - began)
                if done.returncode:
                    raise ProvisionError(f"{way} failed: {(done.stdout + done.stderr)[-600:]}")
    medians = {way: statistics.median(times) for way, times in walls.items()}
    out(f"{len(hosts)} hosts, medians of {rounds} rounds, start-up included")
    for way, median in medians.items():
        out(f"{way:<8} {median * 1000:7.0f} ms  {median / medians['ours']:5.2f} × ours")
    return 0


def _program() -> Path:
    """pyinfra's command, installed where it is not there yet."""
    venv = cache_root() / "bench" / PINNED
    if not (venv / "bin/pyinfra").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [
            str(venv / "bin/python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PINNED,
        ]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    return venv / "bin/pyinfra"


def _write(folder: Path, hosts: list[Target]) -> None:
    """The deploy, its files, and an inventory with what each host is to have."""
    (folder / "deploy.py").write_text(DEPLOY, "utf-8")
    rows = [(target.name, _data(folder / target.name, target)) for target in hosts]
    (folder / "inventory.py").write_text(
        f"import json\nhosts = json.loads({json.dumps(json.dumps(rows))})\n"
        "hosts = [tuple(row) for row in hosts]\n",
        "utf-8",
    )


def _data(folder: Path, target: Target) -> Mapping[str, Any]:
    login = target.login
    with Connection(login) as connection:
        declared = [item.resource for item in declare(target.name, target.settings, ask_facts(connection)[0])]
    folder.mkdir()
    files = []
    for number, file in enumerate(filter(None, (resource.rendered() for resource in declared))):
        (folder / str(number)).write_bytes(file.content)
        files.append((file.path, str(folder / str(number)), file.mode))
    sets = [resource for resource in declared if isinstance(resource, PackageSet)]
    wanted = {
        "files": files,
        "packages": [package.name for packages in sets for package in packages.packages],
        "units": [resource.unit for resource in declared if isinstance(resource, Service)],
    }
    return {
        "ssh_hostname": login.address,
        "ssh_port": login.port,
        "ssh_user": login.user,
        "ssh_key": login.key_files[0],
        "ssh_strict_host_key_checking": "off",
        "_sudo_password": login.become_password,
        "wanted": wanted,
    }
