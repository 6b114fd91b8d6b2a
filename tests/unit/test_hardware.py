"""What a host is made of: read from /sys and /proc, and from whatever stands there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision.cli import facts as shown
from provision.expectation.amounts import amount, in_words
from provision.expectation.settings import EXAMPLE, Expect
from provision.hardware import (
    HARDWARE,
    LONGEST,
    SOFTWARE,
    Cpu,
    Disk,
    Firmware,
    Hardware,
    Nic,
    Software,
    hardware_of,
    software_of,
)
from provision.probe import Output
from provision.run.inspection import Inspection
from tests.unit.examples import H100, script_of
from tests.unit.sandbox import SHELLS

PCI = "sys/bus/pci/devices"
FILES = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon  Platinum 8480+\nflags\t: a\n\nprocessor\t: 1\n",
    "proc/meminfo": "MemTotal:       2113929216 kB\nMemFree: 1 kB\n",
    **{
        f"sys/devices/system/cpu/cpu{n}/topology/{name}": f"{value}\n"
        for n in range(8)
        for name, value in (("physical_package_id", n % 2), ("die_id", 0), ("core_id", n % 4 // 2))
    },
    "sys/devices/system/cpu/cpu9/online": "0\n",
    "sys/devices/system/node/node0/cpulist": "0\n",
    "sys/devices/system/node/node1/cpulist": "1\n",
    **{f"sys/devices/system/memory/memory{n}/state": "online\n" for n in (0, 1, 2, 40)},
    "sys/devices/system/memory/block_size_bytes": "80000000\n",
    "sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/model": "SAMSUNG MZQL23T8       \n",
    "sys/block/nvme0n1/size": "7501476528\n",
    "sys/block/nvme0n1/queue/rotational": "0\n",
    "sys/block/nvme0c0n1/size": "7501476528\n",
    "sys/block/nvme0c0n1/hidden": "1\n",
    "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/model": "ST8000\n",
    "sys/block/sda/size": "15628053168\n",
    "sys/block/sda/queue/rotational": "1\n",
    "sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/host9/target9:0:0/9:0:0:0/model": "Virtual Media\n",
    "sys/block/sdb/size": "1024\n",
    "sys/block/loop0/size": "99\n",
    "sys/block/sr0/size": "2097151\n",
    f"{PCI}/0000:5d:00.0/class": "0x020700\n",
    f"{PCI}/0000:5d:00.0/vendor": "0x15b3\n",
    f"{PCI}/0000:5d:00.0/device": "0x1021\n",
    f"{PCI}/0000:5d:00.0/net/ibp93s0/speed": "-1\n",
    f"{PCI}/0000:5d:00.0/net/ibp93s0/operstate": "up\n",
    f"{PCI}/0000:5d:00.0/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
    f"{PCI}/0000:5e:00.0/class": "0x020000\n",
    f"{PCI}/0000:5e:00.0/vendor": "0x8086\n",
    f"{PCI}/0000:5e:00.0/device": "0x1563\n",
    f"{PCI}/0000:5e:00.0/net/ens1/speed": "10000\n",
    f"{PCI}/0000:5e:00.0/net/ens1/operstate": "up\n",
    f"{PCI}/0000:5e:02.0/class": "0x020000\n",
    f"{PCI}/0000:5e:02.0/physfn/class": "0x020000\n",
    f"{PCI}/0000:5f:00.0/class": "0x020000\n",
    f"{PCI}/0000:5f:00.0/vendor": "0x1af4\n",
    f"{PCI}/0000:5f:00.0/device": "0x1041\n",
    f"{PCI}/0000:5f:00.0/virtio1/net/eth0/operstate": "down\n",
    f"{PCI}/0000:18:00.0/class": "0x030200\n",
    "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
    "sys/class/dmi/id/product_name": "PowerEdge XE9680\n",
    "sys/class/dmi/id/bios_vendor": "Dell Inc.\n",
    "sys/class/dmi/id/bios_version": "2.1.3\n",
    "sys/class/dmi/id/bios_date": "03/12/2026\n",
    "sys/firmware/efi/runtime": "",
    "sys/module/nvidia/version": "580.159.04\n",
    "sys/bus/pci/drivers/mlx5_core/bind": "",
}
LINKS = {
    "sys/block/nvme0n1/device": "sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0",
    "sys/block/nvme0c0n1/device": "sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0",
    "sys/block/sda/device": "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
    "sys/block/sdb/device": "sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/host9/target9:0:0/9:0:0:0",
    "sys/block/sr0/device": "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
    f"{PCI}/0000:5d:00.0/driver": "sys/bus/pci/drivers/mlx5_core",
}
SERVER = Hardware(
    Cpu("Xeon Platinum 8480+", sockets=2, cores=4, threads=8, numa_nodes=2),
    4 * 2 * 2**30,
    (
        Disk("nvme0n1", 7501476528 * 512, "SAMSUNG MZQL23T8", "nvme"),
        Disk("sda", 15628053168 * 512, "ST8000", "sata", rotational=True),
        Disk("sdb", 1024 * 512, "Virtual Media", "usb"),
    ),
    (
        Nic("0000:5d:00.0", "15b3:1021", "mlx5_core", ("ibp93s0",), "up", 400_000),
        Nic("0000:5e:00.0", "8086:1563", "", ("ens1",), "up", 10_000),
        Nic("0000:5f:00.0", "1af4:1041", "", ("eth0",), "down"),
    ),
    Firmware("Dell Inc.", "PowerEdge XE9680", "Dell Inc.", "2.1.3", "03/12/2026", uefi=True),
)


def asked(shell: str, root: Path, script: str) -> Output:
    """What a probe prints of a copy of /sys and /proc below ``root``."""
    for place in ("/sys/", "/proc/"):
        script = script.replace(place, f"{root}{place}")
    ran = subprocess.run(
        [shell, "-c", script], capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    assert ran.stderr == b""
    return Output(ran.returncode, ran.stdout)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of what a server shows."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, to in LINKS.items():
        (tmp_path / name).symlink_to(tmp_path / to)
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_a_server_is_read(shell: str, root: Path) -> None:
    assert hardware_of(asked(shell, root, script_of(HARDWARE))) == SERVER
    assert software_of(asked(shell, root, script_of(SOFTWARE))) == Software("580.159.04")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_host_that_tells_nothing_is_no_error(shell: str, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").touch()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 100 kB\n")
    assert hardware_of(asked(shell, tmp_path, script_of(HARDWARE))) == Hardware(memory_bytes=102_400)


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_is_read_by_the_shell_alone(shell: str) -> None:
    """No program is started: there is none on the path."""
    ran = subprocess.run(
        [shutil.which(shell) or shell, "-c", script_of(HARDWARE)],
        capture_output=True,
        check=True,
        env={"PATH": "/nowhere"},
    )
    found = hardware_of(Output(0, ran.stdout))
    assert ran.stderr == b""
    assert found.cpu.threads >= found.cpu.cores >= found.cpu.sockets >= 1
    assert found.memory_bytes > 2**20


def test_the_version_of_the_toolkit_is_told() -> None:
    told = b"driver 580.159.04\nNVIDIA Container Toolkit CLI version 1.20.0\ncommit: 12\n"
    assert software_of(Output(0, told)) == Software("580.159.04", "1.20.0")


WORDS = """\
disk nic thread sectors speed rate state interface memory-block memory-blocks numa-nodes uefi disk-path
disk-model nic-vendor nic-device cpu-model memory-kib driver rotational"""
VALUES = st.text(max_size=200) | st.integers().map(str)
ANY = st.lists(st.tuples(st.sampled_from(WORDS.split()), VALUES)).map(
    lambda lines: "\n".join(f"{word} {value}" for word, value in lines)
)


@settings(deadline=None)
@given(ANY | st.text() | st.binary().map(lambda data: data.decode("latin-1")))
@example(f"memory-blocks {'9' * 5000}\nmemory-block {'f' * 5000}\ndisk x\nsectors ²\nspeed 3")
@example("disk " + "x" * 5000 + "\ndisk y" * 20_000)
@example("cpu-model \x1b[2J\r\nnic \u202e\nnic-device 0x\u0000")
def test_whatever_a_host_tells_is_read_and_steers_nothing(text: str) -> None:
    answer = Output(0, text.encode(errors="replace"))
    found = Inspection(H100, hardware_of(answer), software_of(answer))
    assert all(line.isprintable() for line in shown.text(found).split("\n"))
    assert all(len(disk.name) <= LONGEST for disk in found.hardware.disks)
    assert shown.document(found)["memory_bytes"] >= 0


def test_facts_as_text_and_as_a_document() -> None:
    found = Inspection(H100, SERVER, Software("580.159.04", "1.20.0"))
    assert shown.text(found).split("\n") == [
        "debian 12 (x86_64), kernel 6.1.0-32-amd64, none, GPUs: 1 H100 (10de:2330)",
        "  cpu: Xeon Platinum 8480+, 2 sockets, 4 cores, 8 threads, 2 NUMA nodes",
        "  memory: 8 GiB",
        "  disk nvme0n1: 3.84 TB, SAMSUNG MZQL23T8, nvme",
        "  disk sda: 8 TB, ST8000, sata, rotational",
        "  disk sdb: 0.52 MB, Virtual Media, usb",
        "  nic 0000:5d:00.0: ibp93s0, 15b3:1021, mlx5_core, link up, 400 Gb/s",
        "  nic 0000:5e:00.0: ens1, 8086:1563, no driver, link up, 10 Gb/s",
        "  nic 0000:5f:00.0: eth0, 1af4:1041, no driver, link down",
        "  firmware: Dell Inc. PowerEdge XE9680, BIOS Dell Inc. 2.1.3 of 03/12/2026, UEFI, Secure Boot off",
        "  NVIDIA driver: 580.159.04, container toolkit: 1.20.0",
    ]
    document = shown.document(found)
    gpu = {"address": "0000:18:00.0", "device": 0x2330, "id": "10de:2330", "model": "H100"}
    assert document["gpus"] == (gpu,)
    assert document["memory_bytes"] == 8 * 2**30
    assert document["disks"][0]["size_bytes"] == 7501476528 * 512
    assert [nic["speed_mbps"] for nic in document["nics"]] == [400_000, 10_000, None]
    assert document["firmware"]["secure_boot"] is False
    assert (document["driver_version"], document["toolkit_version"]) == ("580.159.04", "1.20.0")


@pytest.mark.parametrize(
    ("text", "size", "fits"),
    [
        ("at least 2 TiB", 2 * 2**40, True),
        ("at least 2 TiB", 2 * 2**40 - 1, False),
        ("about 2 TiB", 2 * 2**40, True),
        ("about 2 TiB", 2 * 2**40 * 31 // 32, False),
        ("about 2 TiB", 2 * 2**40 * 33 // 32, False),
        ("about 3.84 TB", 3_840_755_982_336, True),
        ("at least 80 GB", 81559 * 2**20, True),
    ],
)
def test_sizes(text: str, size: int, fits: bool) -> None:
    assert amount(text).fits(size) is fits


@pytest.mark.parametrize(
    ("size", "binary", "words"),
    [
        (0, True, "0 MiB"),
        (2**40, True, "1 TiB"),
        (3 * 2**29, True, "1.5 GiB"),
        (960 * 10**9, False, "960 GB"),
    ],
)
def test_sizes_in_words(size: int, binary: bool, words: str) -> None:
    assert in_words(size, binary=binary) == words


def test_the_example_is_an_order() -> None:
    assert Expect.model_validate_json(json.dumps(EXAMPLE)).names("gpus.pcie")
