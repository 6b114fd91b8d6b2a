"""The GPU hardware of a lab host.

It is what the PCI bus shows before any driver is there, and a description that the stand-ins answer from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

SLOTS = (0x18, 0x3B, 0x86, 0xAF, 0x5D, 0x9A, 0xCB, 0xDB)
"""PCI buses that GPUs sit on; a server with two uses the first two."""

SWITCH_SLOTS = (0x05, 0x06, 0x07, 0x08)
"""PCI buses that NVSwitches sit on."""

MEMORY_MIB = 81559
"""Memory of an H100 80GB HBM3 as nvidia-smi shows it."""

# vendor, device, class, revision, subsystem vendor, subsystem device
HOST_BRIDGE = (0x8086, 0x09A2, 0x088000, 0x20, 0x8086, 0x0000)
NVME = (0x144D, 0xA80A, 0x010802, 0x00, 0x144D, 0xA801)
NETWORK = (0x15B3, 0x1021, 0x020000, 0x00, 0x15B3, 0x0023)
NVSWITCH = (0x10DE, 0x22A3, 0x068000, 0xA1, 0x10DE, 0x1796)
"""An NVSwitch of the third generation, four of which join the GPUs of an HGX H100: a bridge (class 0680)."""
H100 = (0x10DE, 0x2330, 0x030200, 0xA1, 0x10DE, 0x16C1)
"""An H100 SXM5 80GB: a 3D controller (class 0302)."""


def write_hardware(folder: Path, host: str, count: int, switches: int = 0) -> None:
    """Write ``pci/`` and ``gpus.json`` of a host with so many H100 and NVSwitches into ``folder``.

    A running host has the folder mounted, so it sees the change at once.
    """
    pci = folder / "pci"
    pci.mkdir(parents=True, exist_ok=True)
    devices = {"0000:00:00.0": HOST_BRIDGE, "0000:01:00.0": NVME, "0000:02:00.0": NETWORK}
    devices |= {f"0000:{bus:02x}:00.0": H100 for bus in SLOTS[:count]}
    devices |= {f"0000:{bus:02x}:00.0": NVSWITCH for bus in SWITCH_SLOTS[:switches]}
    for gone in {entry.name for entry in pci.iterdir()} - devices.keys():
        shutil.rmtree(pci / gone)
    for address, ids in devices.items():
        _write_device(pci / address, address, ids)
    write_description(folder, host, count, (), switches=switches)


def write_description(
    folder: Path,
    host: str,
    count: int,
    faults: Sequence[str],
    *,
    switches: int = 0,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Write what the stand-ins answer from.

    :param faults: what is broken on this host.
    :param fields: what nvidia-smi answers for these fields of every GPU, in place of an idle H100's values.
    """
    described = [_gpu(host, index) | ({"fields": dict(fields)} if fields else {}) for index in range(count)]
    buses = [f"0000:{bus:02x}:00.0" for bus in SWITCH_SLOTS[:switches]]
    text = json.dumps({"gpus": described, "nvswitches": buses, "faults": list(faults)}, indent=2)
    fresh = folder / "gpus.json.new"
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(folder / "gpus.json")


def _gpu(host: str, index: int) -> dict[str, object]:
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"gpu{index}.{host}.lab")
    serial = 1_320_000_000_000 + int(hashlib.sha256(identity.bytes).hexdigest()[:8], 16)
    return {
        "index": index,
        "uuid": f"GPU-{identity}",
        "name": "NVIDIA H100 80GB HBM3",
        "pci": f"00000000:{SLOTS[index]:02X}:00.0",
        "minor": index,
        "memory_mib": MEMORY_MIB,
        "serial": str(serial),
        "compute_cap": "9.0",
        "vbios": "96.00.A5.00.01",
    }


def _write_device(folder: Path, address: str, ids: tuple[int, int, int, int, int, int]) -> None:
    vendor, device, class_, revision, sub_vendor, sub_device = ids
    folder.mkdir(exist_ok=True)
    texts = {
        "vendor": f"{vendor:#06x}",
        "device": f"{device:#06x}",
        "class": f"{class_:#08x}",
        "revision": f"{revision:#04x}",
        "subsystem_vendor": f"{sub_vendor:#06x}",
        "subsystem_device": f"{sub_device:#06x}",
        "irq": "0",
        "enable": "1",
        "numa_node": "0",
        "local_cpulist": "0-1",
        "current_link_speed": "32.0 GT/s PCIe",
        "current_link_width": "16",
        "max_link_speed": "32.0 GT/s PCIe",
        "max_link_width": "16",
        "modalias": f"pci:v{vendor:08X}d{device:08X}sv{sub_vendor:08X}sd{sub_device:08X}"
        f"bc{class_ >> 16:02X}sc{class_ >> 8 & 0xFF:02X}i{class_ & 0xFF:02X}",
        "uevent": f"PCI_CLASS={class_:X}\nPCI_ID={vendor:04X}:{device:04X}\n"
        f"PCI_SUBSYS_ID={sub_vendor:04X}:{sub_device:04X}\nPCI_SLOT_NAME={address}",
        "resource": "\n".join(["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 13),
    }
    for name, text in texts.items():
        (folder / name).write_text(text + "\n", encoding="ascii")
    (folder / "config").write_bytes(_config_space(ids))


def _config_space(ids: tuple[int, int, int, int, int, int]) -> bytes:
    """The standard header of a PCI function (64 bytes, little-endian), which lspci reads."""
    vendor, device, class_, revision, sub_vendor, sub_device = ids
    head = struct.pack("<HHHHBBH", vendor, device, 0x0006, 0x0010, revision, class_ & 0xFF, class_ >> 8)
    return (head + bytes(32) + struct.pack("<HH", sub_vendor, sub_device)).ljust(64, b"\0")
