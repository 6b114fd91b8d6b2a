"""What a host told of itself, as text for people and as a document for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from provision.errors import visible
from provision.expectation.amounts import in_words
from provision.expectation.differences import speed_in_words
from provision.facts import Facts, Gpu
from provision.gpu import models
from provision.hardware import Cpu, Disk, Firmware, Nic
from provision.run.inspection import Inspection


def document(found: Inspection) -> dict[str, Any]:
    """Everything, for ``--json``; numbers have their units in the names of their keys.

    What a host does not tell is empty, 0, or for the speed of a link null.
    """
    facts = found.facts.document()
    for shown, gpu in zip(facts["gpus"], found.facts.gpus, strict=True):
        shown |= {"id": _pci_id(gpu), "model": _model(gpu)}
    hardware = asdict(found.hardware)
    for nic in hardware["nics"]:
        nic["speed_mbps"] = nic["speed_mbps"] or None
    hardware["firmware"]["secure_boot"] = found.facts.secure_boot
    return {**facts, **hardware, **asdict(found.software)}


def text(found: Inspection) -> str:
    """A line on the system and its GPUs, and below it one for each part."""
    return "\n  ".join(visible(line) for line in _lines(found))


def _lines(found: Inspection) -> Iterator[str]:
    facts, hardware, software = found.facts, found.hardware, found.software
    more = ", NVSwitch" if facts.has_nvswitch else ""
    more += ", Secure Boot" if facts.secure_boot else ""
    yield (
        f"{facts.system} ({facts.machine}), kernel {facts.kernel}, {facts.virtualization},"
        f" GPUs: {_gpus(facts.gpus)}{more}"
    )
    yield f"cpu: {_cpu(hardware.cpu)}"
    yield f"memory: {in_words(hardware.memory_bytes, binary=True)}"
    yield from map(_disk, hardware.disks)
    yield from map(_nic, hardware.nics)
    yield f"firmware: {_firmware(facts, hardware.firmware)}"
    driver, toolkit = software.driver_version or "none runs", software.toolkit_version or "none"
    yield f"NVIDIA driver: {driver}, container toolkit: {toolkit}"


def _gpus(gpus: Iterable[Gpu]) -> str:
    counts = Counter(f"{_model(gpu) or 'unknown model'} ({_pci_id(gpu)})" for gpu in gpus)
    return ", ".join(f"{count} {model}" for model, count in counts.items()) or "none"


def _model(gpu: Gpu) -> str:
    model = models.of_device(gpu.device)
    return model.name if model else ""


def _pci_id(gpu: Gpu) -> str:
    return f"10de:{gpu.device:04x}"


def _cpu(cpu: Cpu) -> str:
    counts = (
        (cpu.sockets, "socket"),
        (cpu.cores, "core"),
        (cpu.threads, "thread"),
        (cpu.numa_nodes, "NUMA node"),
    )
    words = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
    return ", ".join([cpu.model or "unknown model", *words])


def _disk(disk: Disk) -> str:
    size = in_words(disk.size_bytes, binary=False)
    kind = "rotational" if disk.rotational else ""
    return f"disk {disk.name}: {', '.join(filter(None, (size, disk.model, disk.transport, kind)))}"


def _nic(nic: Nic) -> str:
    name = ", ".join(nic.names) or "no interface"
    speed = speed_in_words(nic.speed_mbps) if nic.speed_mbps else ""
    link = f"link {nic.link}" if nic.link else ""
    words = (name, nic.id, nic.driver or "no driver", link, speed)
    return f"nic {nic.address}: {', '.join(filter(None, words))}"


def _firmware(facts: Facts, firmware: Firmware) -> str:
    machine = " ".join(filter(None, (firmware.vendor, firmware.product)))
    bios = " ".join(filter(None, (firmware.bios_vendor, firmware.bios_version)))
    date = f" of {firmware.bios_date}" if firmware.bios_date else ""
    boot = "UEFI" if firmware.uefi else "no UEFI"
    secure = f"Secure Boot {'on' if facts.secure_boot else 'off'}"
    return ", ".join(filter(None, (machine, f"BIOS {bios}{date}" if bios else "", boot, secure)))
