"""Virtual machines of a lab as racks hold them: with a seed, an address of their own and Secure Boot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import secure_vm
from lab.execute import execute
from lab.layout import Layout
from lab.secure_vm import SecureVm
from provision.errors import ProvisionError

ROOT = Path(__file__).resolve().parent.parent


def address(layout: Layout, number: int) -> str:
    """Of ``vm-01`` and those that follow, on the lab's bridge."""
    return f"{layout.prefix}.{60 + number}"


def entries(layout: Layout, count: int) -> dict[str, Any]:
    """What the lab's state says of so many machines."""
    return {f"vm-{number:02d}": {"address": address(layout, number)} for number in range(1, count + 1)}


def machine(layout: Layout, name: str, about: dict[str, Any]) -> SecureVm:
    """The machine of an entry."""
    return SecureVm(layout, about["address"], layout.state / name, layout.cache, name=name)


def switch_on(machines: list[SecureVm]) -> None:
    """Write the seeds of machines that have no disk yet, and boot all that are off.

    :raises ProvisionError: ``bare.seed`` fails, or nobody can log in.
    """
    if packages := secure_vm.missing_programs():
        execute("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages)
    if new := [one for one in machines if not one.folder.exists()]:
        seeds = new[0].layout.state / "seeds"
        _write_seeds(new, seeds)
        for one in new:
            one.create(seeds / one.name)
    off = [one for one in machines if not one.running()]
    for one in off:
        one.power_on()
    for one in off:
        one.await_login()


def _write_seeds(machines: list[SecureVm], seeds: Path) -> None:
    inventory = ROOT / "inventories/lab/hosts.py"
    hosts = ",".join(one.name for one in machines)
    command = ("bare.seed", "--inventory", str(inventory), "--hosts", hosts, "--out", str(seeds), "--yes")
    done = subprocess.run(
        [sys.executable, "-m", "provision", *command],
        cwd=ROOT,
        env={**os.environ, "PROVISION_LAB": machines[0].layout.name},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ProvisionError(f"bare.seed ended with {done.returncode}: {done.stderr.strip()}")
