"""A machine as a provider hands it over: seed, console, and a kernel that takes signed modules only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import secure_vm
from lab.execute import execute
from lab.lab import Lab
from lab.layout import ADMIN
from lab.secure_vm import SecureVm
from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Planned
from provision.roles.driver.secure_boot import SecureBoot, SecureBootState
from provision.shell import assembled
from tests.lab.cli import inv, write_inventory
from tests.lab.test_provision import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.campaign("vm", only=True)]

NAME = "vm-01"
PASSWORD = "confirmed"
MODULE = Path(__file__).with_name("small_module.sh")


def inventory(lab: Lab, folder: Path, known_hosts: Path) -> Path:
    """One machine that a seed makes."""
    layout, public = lab.layout, Path(f"{lab.layout.ssh_key}.pub").read_text("ascii").strip()
    host = {
        "ansible_host": f"{layout.prefix}.60",
        "ansible_user": ADMIN,
        "ansible_ssh_private_key_file": str(layout.ssh_key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts}",
        "ansible_become": True,
        "seed": {
            "system": "debian",
            "method": "image",
            "authorized_keys": [public],
            "network": {"interface": "eth0", "address": f"{layout.prefix}.60/24"},
        },
    }
    return write_inventory(folder, {"_meta": {"hostvars": {NAME: host}}, "all": {"hosts": [NAME]}})


@pytest.fixture(scope="module")
def source(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inventory, whose known_hosts is the lab's."""
    return inventory(lab, tmp_path_factory.mktemp("inventory"), lab.layout.known_hosts)


@pytest.fixture(scope="module")
def machine(lab: Lab, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureVm]:
    """The machine, booted from the seed that ``bare.seed`` writes."""
    if packages := secure_vm.missing_programs():
        execute("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages)
    seeds = tmp_path_factory.mktemp("seeds")
    answer = inv("bare.seed", "--hosts", NAME, "--out", str(seeds), "--yes", inventory=source)
    assert answer.code == 0, str(answer)
    layout = lab.layout
    machine = SecureVm(layout, f"{layout.prefix}.60", layout.state / "secure-vm", layout.cache)
    machine.create(seeds / NAME)
    try:
        machine.boot()
        yield machine
    finally:
        machine.cut()


def console(machine: SecureVm) -> str:
    return machine.log.read_text("utf-8", "replace")


def test_the_first_connection_is_trusted(machine: SecureVm, source: Path) -> None:
    """Its host key was made beforehand, and nobody has accepted one."""
    answer = inv("facts", "--hosts", NAME, "--json", inventory=source)
    assert answer.code == 0, str(answer)
    assert "secureboot: Secure boot enabled" in console(machine)
    assert "Secure Boot" in inv("facts", "--hosts", NAME, inventory=source).out


def test_its_console_tells_the_key_of_the_seed(machine: SecureVm, lab: Lab, tmp_path: Path) -> None:
    wait_for(lambda: "Cloud-init v." in console(machine) and " finished at " in console(machine), 1200)
    known = tmp_path / "known_hosts"
    stranger = inventory(lab, tmp_path / "inventory", known)
    log = f"{NAME}={machine.log}"
    answer = inv("bare.enroll", "--hosts", NAME, "--from-console", log, "--yes", inventory=stranger)
    assert answer.code == 0, str(answer)
    ours = {line.split()[2] for line in lab.layout.known_hosts.read_text().splitlines() if "60" in line}
    assert {line.split()[2] for line in known.read_text().splitlines()} & ours


def test_a_module_that_nobody_vouches_for_is_refused(machine: SecureVm) -> None:
    """DKMS signs it with a key of its own, which is not among the machine's."""
    said = machine.run(MODULE.read_text("utf-8"))
    assert said is not None
    assert "Key was rejected by service" in said, said
    assert "DKMS module signing key" in said


def driver_role(machine: SecureVm) -> tuple[SecureBootState, str]:
    """What the driver role finds of Secure Boot, and why it would refuse a driver; with its hint."""
    resource = SecureBoot(("nvidia-kernel-open-dkms",))
    probe = resource.question()
    told = machine.run(f"{assembled(*probe.shell)}{probe.script}")
    state = resource.read(Output(0, (told or "").encode()))
    try:
        assert resource.change(state, Planned()) is None
    except Refusal as refusal:
        return state, f"{refusal.message}\n{refusal.hint}"
    return state, ""


GPU = "/root/pci/0000:18:00.0"
BUS = (
    f"mkdir -p {GPU}; echo 0x10de >{GPU}/vendor; echo 0x2330 >{GPU}/device; echo 0x030200 >{GPU}/class;"
    " mountpoint -q /sys/bus/pci/devices || mount --bind /root/pci /sys/bus/pci/devices"
)
"""A stand-in: QEMU has no GPU of NVIDIA, and a look at the bus is all that verification takes of it."""


def found_by_verify(machine: SecureVm, source: Path) -> dict[str, Any]:
    """What verification says of the module on a machine with a GPU and without a driver."""
    machine.run(BUS)
    document = json.loads(source.with_name("hosts.json.txt").read_text("utf-8"))
    document["_meta"]["hostvars"][NAME]["driver"] = {"branch": 580}
    told = write_inventory(source.parent / "driver", document)
    answer = inv("verify", "--hosts", NAME, "--roles", "driver", "--json", inventory=told)
    machine.run("umount /sys/bus/pci/devices")
    assert answer.code == 3, str(answer)
    checks = answer.host(NAME)["checks"]
    found: dict[str, Any] = next(one for one in checks if one["name"] == "kernel module is loaded")
    return found


def confirm_at_the_console(machine: SecureVm, since: int) -> None:
    """Go through the menus of shim's MokManager, which wait for somebody."""
    for shown, keys in (
        ("Press any key to perform MOK management", ["ret"]),
        ("Enroll MOK", ["down", "ret"]),
        ("View key 0", ["down", "ret"]),
        ("Enroll the key(s)?", ["down", "ret"]),
        ("Password:", [*PASSWORD, "ret"]),
        ("Perform MOK management", ["ret"]),
    ):
        end = time.monotonic() + 300
        while shown not in console(machine)[since:]:
            assert time.monotonic() < end, f"{shown!r} was not shown: {console(machine)[since:][-500:]!r}"
            time.sleep(0.5)
        since = len(console(machine))
        time.sleep(2)
        machine.press(*keys)


def test_a_key_that_somebody_confirms_at_the_console_is_taken(machine: SecureVm, source: Path) -> None:
    """As the driver role advises: an import, a reboot, and MokManager."""
    state, refused = driver_role(machine)
    assert (state.enforced, state.enrolment) == (True, "refused")
    assert "Secure Boot is on, and" in refused
    assert f"mokutil --import {state.key}" in refused
    found = found_by_verify(machine, source)
    assert "the kernel module nvidia is not loaded: Secure Boot is on, and" in found["message"], found
    assert found["hint"].startswith(f"mokutil --import {state.key}"), found
    machine.run(
        f"mokutil --generate-hash={PASSWORD} >/root/hash; mokutil --import {state.key} --hash-file /root/hash"
    )
    state, refused = driver_role(machine)
    assert state.enrolment == "requested"
    assert "reboot and confirm on the console (Enroll MOK), then run again" in refused
    since = len(console(machine))
    machine.run("systemctl reboot", check=False)
    confirm_at_the_console(machine, since)
    wait_for(lambda: machine.run("uptime", check=False) is not None, 600)
    state, refused = driver_role(machine)
    assert (state.enforced, state.enrolment, refused) == (True, "enrolled", "")
    machine.run("modprobe small && test -d /sys/module/small")


def test_the_lab_has_such_machines_for_everybody(machine: SecureVm, lab: Lab) -> None:
    """With a seed of ``bare.seed``, in the lab's own inventory, and there again after its power failed."""
    machine.cut()
    command = ("lab.up", "--count", str(len(lab.hosts)), "--vm", "1")
    try:
        answer = inv(*command, timeout=1200)
        assert answer.code == 0, str(answer)
        first = inv("facts", "--hosts", "racks", "--json")
        assert first.host(NAME)["firmware"]["secure_boot"] is True, str(first)
        lab.machines[0].run("cloud-init status --wait; sync")
        lab.machines[0].cut()
        assert f"{NAME} " in inv("lab.status").out
        assert inv(*command, timeout=1200).code == 0
        assert inv("facts", "--hosts", NAME).code == 0
    finally:
        for one in lab.machines:
            one.cut()
