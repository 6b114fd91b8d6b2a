"""The whole way of a machine without GPUs: seed, boot, first login, role host, a newer kernel, roles.

It is a virtual machine with Secure Boot, a boot loader and a kernel of its own. Each stage runs once by
itself, which is timed, and once more on a new disk, where controller and power are cut in its middle.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import secure_vm
from lab.execute import execute
from lab.lab import Lab
from lab.layout import ADMIN
from lab.secure_vm import SecureVm
from tests.lab.cli import Answer, inv, lab_inventory, start, write_inventory
from tests.lab.test_provision import host, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.campaign("racks", only=True)]

NAME = "vm-01"
PATIENCE = 1800
"""Seconds for a command, as everything in the machine is emulated."""

HOST = {
    "profile": "h100",
    "hostname": "vm-01.example.org",
    "time": {"servers": ["192.0.2.7"]},
    "kernel_args": ["mitigations=auto"],
    "sysctl": {"vm.swappiness": 1, "net.core.rmem_max": 536870912},
    "limits": {"nofile": 1048576},
    "modules": {"load": ["dummy"], "options": {"dummy": {"numdummies": 3}}, "blacklist": ["pcspkr"]},
    "journal_size": "256M",
    "reboot": "allowed",
}

BROKEN = "dpkg --audit; find /etc /usr/local /var/lib -xdev -name '.provision.*'"
"""Prints packages that are half done, and what is left of files that were being written."""


@dataclass(frozen=True)
class Stage:
    """A command for the machine, and what is so after it.

    :ivar proves: a script that succeeds on the machine afterwards.
    """

    name: str
    command: tuple[str, ...]
    proves: str = "true"

    def run(self, source: Path) -> Answer:
        answer = inv(*self.command, inventory=source, timeout=PATIENCE)
        assert answer.code == 0, str(answer)
        return answer

    def cut(self, source: Path, seconds: float, power: Callable[[], object] = lambda: None) -> list[str]:
        """Kill the controller in the middle, then what else is to fail; the last that it said."""
        process = start(*self.command, inventory=source)
        time.sleep(seconds)
        process.kill()
        power()
        return process.communicate()[1].splitlines()[-1:]


STAGES = (
    Stage(
        "first login",
        ("bare.bootstrap", "--hosts", NAME, "--yes"),
        "sshd -T | grep -qx 'passwordauthentication no' && test -s /etc/ssh/sshd_config.d/00-provision.conf",
    ),
    Stage(
        "role host, with a reboot",
        ("provision", "--hosts", NAME, "--roles", "host", "--yes"),
        "grep -w iommu=pt /proc/cmdline && grep -w mitigations=auto /proc/cmdline && hostname -f &&"
        " test -e /sys/class/net/dummy2 && systemctl is-active chrony",
    ),
    Stage(
        "toolkit and Docker",
        ("provision", "--hosts", NAME, "--roles", "toolkit,docker", "--yes"),
        "docker info --format '{{.DefaultRuntime}}' | grep -x nvidia",
    ),
)


@dataclass
class Racks:
    """The machine, its inventory, and how long each stage took."""

    machine: SecureVm
    source: Path
    seeds: Path
    debian: tuple[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        self.seconds[stage] = time.monotonic() - began

    def begin(self) -> None:
        """A new disk, the first boot to its end, and the site's mirror of Debian."""
        self.machine.create(self.seeds / NAME)
        self.machine.boot()
        wait_for(self.has_finished, 1800)
        self.give_mirror()

    def has_finished(self) -> bool:
        """Whether cloud-init has done all that the seed asks for; the last of it is on the console."""
        console = self.machine.log.read_text("utf-8", "replace")
        return "Cloud-init v." in console and " finished at " in console

    def give_mirror(self) -> None:
        sources, key = self.debian
        self.machine.run(
            f"cat >/etc/apt/sources.list.d/debian.sources <<'END'\n{sources}\nEND\n"
            f"cat >/usr/share/keyrings/mirror-archive-keyring.asc <<'END'\n{key}\nEND\n"
        )

    def back(self) -> None:
        """Power comes back."""
        self.machine.cut()
        self.machine.boot()


def document(lab: Lab, known_hosts: Path) -> dict[str, Any]:
    """The inventory of the machine, with what the lab's own hosts are told of mirrors."""
    layout, public = lab.layout, Path(f"{lab.layout.ssh_key}.pub").read_text("ascii").strip()
    told = lab_inventory()["gpu-nodes"]["vars"]
    machine = {
        "ansible_host": f"{layout.prefix}.61",
        "ansible_user": ADMIN,
        "ansible_ssh_private_key_file": str(layout.ssh_key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts}",
        "ansible_become": True,
        "mirror": told["mirror"],
        "host": HOST,
        "toolkit": {},
        "docker": told["docker"],
        "seed": {
            "system": "debian",
            "method": "image",
            "authorized_keys": [public],
            "network": {"interface": "eth0", "address": f"{layout.prefix}.61/24"},
        },
    }
    return {"_meta": {"hostvars": {NAME: machine}}, "all": {"hosts": [NAME]}}


@pytest.fixture(scope="module")
def racks(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Racks]:
    """The machine, not yet booted, with its seed."""
    if packages := secure_vm.missing_programs():
        execute("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages)
    layout, seeds = lab.layout, tmp_path_factory.mktemp("seeds")
    source = write_inventory(tmp_path_factory.mktemp("inventory"), document(lab, layout.known_hosts))
    machine = SecureVm(layout, f"{layout.prefix}.61", layout.state / "racks", layout.cache)
    files = ("/etc/apt/sources.list.d/debian.sources", "/usr/share/keyrings/mirror-archive-keyring.asc")
    mirror = [Path(f"{host(lab, 'gpu-01').root}{file}").read_text("ascii") for file in files]
    found = Racks(machine, source, seeds, (mirror[0], mirror[1]))
    answer = inv("bare.seed", "--hosts", NAME, "--out", str(seeds), "--yes", inventory=source)
    assert answer.code == 0, str(answer)
    try:
        yield found
    finally:
        machine.cut()
        shutil.rmtree(machine.folder, ignore_errors=True)


def test_the_whole_way(racks: Racks, request: pytest.FixtureRequest) -> None:
    machine, source = racks.machine, racks.source
    racks.timed("boot, to the end of cloud-init", racks.begin)
    log = f"{NAME}={machine.log}"
    enrol = ("bare.enroll", "--hosts", NAME, "--from-console", log, "--yes")
    racks.timed("enrolment from the console", partial(Stage("", enrol).run, source))
    for stage in STAGES[:2]:
        racks.timed(stage.name, partial(stage.run, source))
        machine.run(stage.proves)
    racks.timed("newer kernel", partial(newer_kernel, racks))
    racks.timed(STAGES[2].name, partial(STAGES[2].run, source))
    machine.run(STAGES[2].proves)
    for command in (("plan",), ("verify", "-k", "not cdi and not driver")):
        answer = inv(*command, "--hosts", NAME, inventory=source, timeout=PATIENCE)
        assert answer.code == 0, str(answer)
    minutes = {name: f"{seconds / 60:.1f} min" for name, seconds in racks.seconds.items()}
    request.node.user_properties.extend(minutes.items())


def newer_kernel(racks: Racks) -> None:
    """An upgrade brings a kernel, which a reboot starts with the arguments of role host."""
    machine = racks.machine
    before = machine.run("uname -r")
    machine.run("cd /srv/newer-kernel && apt-get -q -y install ./*.deb >/dev/null")
    answer = inv("plan", "--hosts", NAME, "--roles", "host", inventory=racks.source, timeout=PATIENCE)
    assert answer.code == 0, str(answer)
    boot = machine.run("cat /proc/sys/kernel/random/boot_id")
    machine.run("systemctl reboot", check=False)
    again = "cat /proc/sys/kernel/random/boot_id"
    wait_for(lambda: machine.run(again, check=False) not in (None, boot), 600)
    assert machine.run("uname -r") != before
    machine.run(STAGES[1].proves)
    answer = inv("plan", "--hosts", NAME, "--roles", "host", inventory=racks.source, timeout=PATIENCE)
    assert answer.code == 0, str(answer)


def test_each_stage_converges_after_cuts(racks: Racks, request: pytest.FixtureRequest) -> None:
    """The controller is killed in each, and where it goes on, the power fails; also in the first boot."""
    machine, noted = racks.machine, request.node.user_properties
    machine.create(racks.seeds / NAME)
    machine.power_on()
    time.sleep(racks.seconds["boot, to the end of cloud-init"] * 0.6)
    racks.back()
    wait_for(racks.has_finished, 1800)
    racks.give_mirror()
    for stage in STAGES:
        seconds = racks.seconds[stage.name]
        noted.append((f"{stage.name}, controller killed", stage.cut(racks.source, seconds * 0.3)))
        noted.append((f"{stage.name}, power cut", stage.cut(racks.source, seconds * 0.3, racks.back)))
        noted.append((f"{stage.name}, half done", repr(machine.run(BROKEN, check=False))))
        stage.run(racks.source)
        machine.run(stage.proves)
        assert machine.run(BROKEN) == ""
        assert inv(*stage.command, inventory=racks.source, timeout=PATIENCE).code == 0
