"""Facts from what hosts answer, and GPU generations from their device ids."""

from __future__ import annotations

import itertools
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.facts import FACTS, PROBES, VIRTUALIZATION, Gpu, parse
from provision.gpu.pci import RANGES, Architecture, architecture_of
from provision.probe import Output
from provision.shell import assembled
from tests.unit.examples import H100, script_of
from tests.unit.sandbox import SHELLS

DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
"""
ROCKY = """\
NAME="Rocky Linux"
VERSION="9.4 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID='9.4'
"""
SYSTEM = "6.1.0-32-amd64\nx86_64\namd64\n8a3c\n"
PCI = """\
0000:05:00.0 0x068000 0x22a3
0000:18:00.0 0x030200 0x2330
0000:2a:00.0 0x030000 0x1eb8
0000:2a:00.1 0x040300 0x10f8
0000:3b:00.0 0x030200 0xffff
"""
"""An NVSwitch, an H100, a T4 with its audio function, and something newer than the table."""


def answers(
    os_release: str = DEBIAN,
    system: str = SYSTEM,
    pci: str = PCI,
    secure_boot: str = "   1\n",
    nvlink5: str = "",
    *,
    virtualization: str = "none\n",
) -> dict[str, Output]:
    texts = {
        "os-release": os_release,
        "system": system,
        "pci": pci,
        "secure-boot": secure_boot,
        "nvlink5": nvlink5,
        "virtualization": virtualization,
    }
    return {name: Output(0, text.encode()) for name, text in texts.items()}


def test_a_debian_host() -> None:
    facts = parse(answers())
    assert (facts.system, facts.codename, facts.architecture, facts.family) == (
        "debian 12",
        "bookworm",
        "amd64",
        "debian",
    )
    assert (facts.kernel, facts.machine, facts.boot_id) == ("6.1.0-32-amd64", "x86_64", "8a3c")
    assert (facts.virtualization, facts.secure_boot) == ("none", True)
    assert facts.gpus == (
        Gpu("0000:18:00.0", 0x2330),
        Gpu("0000:2a:00.0", 0x1EB8),
        Gpu("0000:3b:00.0", 0xFFFF),
    )
    assert [gpu.architecture for gpu in facts.gpus] == [Architecture.HOPPER, Architecture.TURING, None]
    assert (facts.nvswitches, facts.nvlink5, facts.has_nvswitch) == (1, False, True)


def test_a_rocky_host_in_a_virtual_machine_without_gpus() -> None:
    facts = parse(answers(ROCKY, "5.14\naarch64\n\n8a3c\n", "", "", virtualization="kvm\n"))
    assert (facts.system, facts.codename) == ("rocky 9.4", "")
    assert (facts.virtualization, facts.secure_boot, facts.gpus) == ("kvm", False, ())
    assert (facts.family, facts.major, facts.has_nvswitch) == ("rhel", "9", False)


def test_nvlink_5_has_switches_that_are_not_on_the_bus() -> None:
    facts = parse(answers(pci="", nvlink5="yes\n"))
    assert (facts.nvswitches, facts.nvlink5, facts.has_nvswitch) == (0, True, True)


@pytest.mark.parametrize(
    ("system", "family"),
    [(DEBIAN, "debian"), (ROCKY, "rhel"), ("ID=arch\n", None)],
    ids=["apt", "rpm", "other"],
)
def test_the_family_tells_whose_packages_there_are(system: str, family: str | None) -> None:
    dpkg = "amd64" if family else ""
    assert parse(answers(system, f"6.1\nx86_64\n{dpkg}\n8a3c\n")).family == family


@pytest.mark.parametrize(("value", "on"), [("   1\n", True), ("   0\n", False), ("", False), ("junk", False)])
def test_secure_boot(value: str, on: bool) -> None:
    assert parse(answers(secure_boot=value)).secure_boot is on


@pytest.mark.parametrize("wrong", [{"os_release": ""}, {"os_release": "NAME=x\n"}, {"system": "6.1\n"}])
def test_a_system_that_cannot_be_told(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a Linux system that we know"):
        parse(answers(**wrong))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_probes_answer_on_this_machine(shell: str) -> None:
    ran = {
        probe.name: subprocess.run([shell, "-c", script_of(probe)], capture_output=True, check=False)
        for probe in (*PROBES, VIRTUALIZATION)
    }
    assert {name: result.returncode for name, result in ran.items()} == dict.fromkeys(ran, 0)
    facts = parse({name: Output(0, result.stdout) for name, result in ran.items()})
    assert facts.kernel == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.virtualization
    assert facts.user == os.getuid()


def test_the_virtualization_is_told_where_it_was_asked() -> None:
    told = answers(virtualization="")
    assert parse(told).virtualization == "none"
    del told["virtualization"]
    assert parse(told).virtualization == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_gpus_of_a_bus_are_listed(shell: str, tmp_path: Path) -> None:
    """The probe runs against a copy of /sys/bus/pci/devices."""
    devices = {
        "0000:00:00.0": ("0x8086", "0x060000", "0x1237"),
        "0000:18:00.0": ("0x10de", "0x030200", "0x2330"),
        "0000:19:00.0": ("0x10de", "0x068000", "0x22a3"),
    }
    for address, values in devices.items():
        (tmp_path / address).mkdir()
        for name, value in zip(("vendor", "class", "device"), values, strict=True):
            (tmp_path / address / name).write_text(f"{value}\n")
    script = next(script_of(probe) for probe in PROBES if probe.name == "pci")
    script = script.replace("/sys/bus/pci/devices", str(tmp_path))
    out = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True).stdout
    assert parse(answers(pci=out)).gpus == (Gpu("0000:18:00.0", 0x2330),)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0x102D, "KEPLER"),
        (0x13F2, "MAXWELL"),
        (0x17FD, "MAXWELL"),
        (0x15F8, "PASCAL"),
        (0x1B38, "PASCAL"),
        (0x1DB4, "VOLTA"),
        (0x1EB8, "TURING"),
        (0x20B0, "AMPERE"),
        (0x2235, "AMPERE"),
        (0x25B6, "AMPERE"),
        (0x26B9, "ADA"),
        (0x27B8, "ADA"),
        (0x2330, "HOPPER"),
        (0x2342, "HOPPER"),
        (0x2901, "BLACKWELL"),
        (0x2BB5, "BLACKWELL"),
        (0x3182, "BLACKWELL"),
        (0x0001, None),
        (0xFFFF, None),
    ],
)
def test_generations(device: int, name: str | None) -> None:
    """K80, M60, M40, P100, P40, V100, T4, A100, A40, A2, L40S, L4, H100, GH200, B200, RTX PRO 6000, B300."""
    found = architecture_of(device)
    assert (found.name if found else None) == name


def test_the_blocks_of_device_ids_do_not_overlap() -> None:
    assert all(first <= last for first, last, _ in RANGES)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(RANGES))


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_no_file_is_not_waited_for(shell: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "os-release")
    script = f"{assembled(FACTS)}lines_of '{tmp_path}/os-release'; echo on"
    out = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out == "on\n"


def test_what_no_host_tells_is_in_no_document() -> None:
    document = replace(H100, declared_driver="580.*").document()
    assert document["os"] == "debian"
    assert "declared_driver" not in document
