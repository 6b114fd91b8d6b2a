"""What was ordered × what a host is made of → how they differ, a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from provision.errors import visible
from provision.expectation.amounts import amount
from provision.expectation.settings import Cpu, Disks, Expect, Firmware, Gpus, Nics, pci_id
from provision.facts import Facts, Gpu
from provision.gpu import models
from provision.hardware import Disk, Hardware, Nic

NAMED = 8
"""Devices that a sentence names."""


def differences(expect: Expect, facts: Facts, hardware: Hardware) -> list[str]:
    """How a host differs from its order, as far as that can be known without a driver of NVIDIA's."""
    return [
        *(_gpus(expect.gpus, facts.gpus) if expect.gpus else ()),
        *(_memory(expect.memory, hardware.memory_bytes) if expect.memory else ()),
        *(text for nics in expect.nics for text in _nics(nics, hardware.nics)),
        *(text for disks in expect.disks for text in _disks(disks, hardware.disks)),
        *(_cpu(expect.cpu, hardware) if expect.cpu else ()),
        *(_firmware(expect.firmware, facts, hardware) if expect.firmware else ()),
    ]


def alike(text: str, pattern: str) -> bool:
    """Whether a text is what a setting asks for: capitals do not count, ``*`` stands for any text."""
    return fnmatchcase(text.lower(), pattern.lower())


def named(items: Iterable[str]) -> str:
    """Texts from a host in a list, cut where there are many."""
    found = [visible(item) for item in items]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{', '.join(found[:NAMED])}{more}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# ── GPUs ─────────────────────────────────────────────────────────────────────────────────────────────────


def _gpus(expect: Gpus, there: Sequence[Gpu]) -> Iterator[str]:
    ids = _devices(expect.model)
    fit = [gpu for gpu in there if ids is None or gpu.device in ids]
    others = [gpu for gpu in there if gpu not in fit]
    what = f"of {expect.model}" if expect.model else ""
    absent = [slot for slot in expect.slots if slot not in {gpu.address for gpu in fit}]
    told = [f"none at {named(absent)}"] if absent else []
    if others and (expect.wanted is None or len(fit) != expect.wanted):
        told.append(f"but {named(f'{_model(gpu)} at {gpu.address}' for gpu in others)}")
    if expect.wanted is None and expect.model and (others or not there):
        yield f"expects all GPUs {what}, has {'; '.join(told).removeprefix('but ') or 'no GPU'}"
    elif expect.wanted is not None and len(fit) != expect.wanted:
        at = f": at {named(gpu.address for gpu in fit)}" if fit and not absent else ""
        rest = f"; {'; '.join(told)}" if told else ""
        yield f"expects {_count(expect.wanted, 'GPU')} {what}".rstrip() + f", has {len(fit)}{at}{rest}"
    elif absent:
        yield f"expects a GPU {what}".rstrip() + f" at {named(absent)}, has none there"


def _devices(model: str | None) -> tuple[int, ...] | None:
    """The PCI device ids that a model has; None where none is named."""
    if model is None:
        return None
    if (device := pci_id(model)) is not None:
        return (device,)
    found = models.find(model)
    return found.devices if found else ()


def _model(gpu: Gpu) -> str:
    return f"10de:{gpu.device:04x}"


# ── memory, processors, firmware ─────────────────────────────────────────────────────────────────────────


def _memory(expect: str, there: int) -> Iterator[str]:
    wanted = amount(expect)
    if not wanted.fits(there):
        yield f"expects {expect} of memory, has {wanted.shown(there)}"


def _cpu(expect: Cpu, hardware: Hardware) -> Iterator[str]:
    there = hardware.cpu
    for noun, wanted, found in (
        ("socket", expect.sockets, there.sockets),
        ("core", expect.cores, there.cores),
        ("thread", expect.threads, there.threads),
    ):
        if wanted is not None and found != wanted:
            yield f"expects {_count(wanted, noun)} of CPUs, has {found}"
    if expect.model is not None and not alike(there.model, expect.model):
        yield f"expects CPUs of model {expect.model!r}, {_has(there.model)}"


def _firmware(expect: Firmware, facts: Facts, hardware: Hardware) -> Iterator[str]:
    if expect.secure_boot is not None and facts.secure_boot != expect.secure_boot:
        words = {True: "on", False: "off"}
        yield f"expects Secure Boot to be {words[expect.secure_boot]}, it is {words[facts.secure_boot]}"
    if expect.bios is not None and not alike(hardware.firmware.bios_version, expect.bios):
        yield f"expects BIOS version {expect.bios!r}, {_has(hardware.firmware.bios_version)}"


def _has(text: str) -> str:
    return f"has {text!r}" if text else "and the host does not tell it"


# ── devices of which there are some ──────────────────────────────────────────────────────────────────────


def _nics(expect: Nics, there: Sequence[Nic]) -> Iterator[str]:
    like = [
        nic
        for nic in there
        if expect.id in (None, nic.id)
        and (expect.name is None or any(alike(name, expect.name) for name in nic.names))
    ]
    wrong = [f"{_nic(nic)} {text}" for nic in like if (text := _wrong_nic(expect, nic))]
    wanted = (expect.id, expect.name, expect.driver and f"driver {expect.driver}", expect.speed)
    yield from _counted("NIC", expect.count, wanted, len(like), wrong)


def _nic(nic: Nic) -> str:
    return f"{nic.names[0]} ({nic.address})" if nic.names else nic.address


def _wrong_nic(expect: Nics, nic: Nic) -> str:
    if expect.driver is not None and not alike(nic.driver, expect.driver):
        return f"has driver {nic.driver}" if nic.driver else "has no driver"
    if expect.speed is not None and nic.speed_mbps != _mbps(expect.speed):
        if nic.link != "up":
            return "has no link, so no speed"
        return f"has {speed_in_words(nic.speed_mbps)}" if nic.speed_mbps else "does not tell its speed"
    return ""


def _mbps(speed: str) -> int:
    number, _, unit = speed.partition(" ")
    return round(float(number) * (1000 if unit == "Gb/s" else 1))


def speed_in_words(mbps: int) -> str:
    """A speed as settings have it: ``400 Gb/s``."""
    return f"{mbps / 1000:g} Gb/s" if mbps >= 1000 else f"{mbps} Mb/s"


def _disks(expect: Disks, there: Sequence[Disk]) -> Iterator[str]:
    like = [
        disk
        for disk in there
        if (disk.transport == expect.transport if expect.transport else disk.transport != "usb")
        and (expect.model is None or alike(disk.model, expect.model))
    ]
    size = amount(expect.size) if expect.size else None
    wrong = [
        f"{disk.name} has {size.shown(disk.size_bytes)}"
        for disk in like
        if size and not size.fits(disk.size_bytes)
    ]
    yield from _counted("disk", expect.count, (expect.transport, expect.model, expect.size), len(like), wrong)


def _counted(
    noun: str, wanted: int, properties: Sequence[str | None], like: int, wrong: Sequence[str]
) -> Iterator[str]:
    """The sentence on devices that are alike.

    :param like: how many are of the kind.
    :param wrong: those of them that do not fit, and what is wrong.
    """
    fit = like - len(wrong)
    if fit != wanted:
        which = ", ".join(filter(None, properties))
        near = f"; {named(wrong)}" if wrong else ""
        yield f"expects {_count(wanted, noun)}{f' ({which})' if which else ''}, has {fit}{near}"
