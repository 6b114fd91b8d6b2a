"""What a host is made of: processors, memory, disks, network, firmware. Read only where that is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from provision.probe import Output, Probe

HARDWARE = Probe("hardware", "hardware", ("shell/hardware.sh",))
"""The question behind :class:`Hardware`. It starts no program."""

SOFTWARE = Probe("software", "software", ("shell/hardware.sh",))
"""The question behind :class:`Software`."""

LONGEST = 100
"""Characters of a name that are kept."""

PATH = 1000
"""Characters of a path that are kept."""

MOST = 10_000
"""Lines that are read; a host with 4,000 threads and 1,000 disks has fewer."""

SECTOR = 512
"""Bytes of a sector in /sys, whatever those of the disk are."""


@dataclass(frozen=True)
class Cpu:
    """Processors; what a host does not tell is empty or 0, here and below.

    :ivar cores: of all sockets together, and so are the threads.
    """

    model: str = ""
    sockets: int = 0
    cores: int = 0
    threads: int = 0
    numa_nodes: int = 0


@dataclass(frozen=True)
class Disk:
    """A disk.

    :ivar transport: ``nvme``, ``sas``, ``sata``, ``scsi`` (a RAID controller's, too), ``virtio`` or ``usb``.
    """

    name: str
    size_bytes: int = 0
    model: str = ""
    transport: str = ""
    rotational: bool = False


@dataclass(frozen=True)
class Nic:
    """A network function on the PCI bus.

    :ivar id: vendor and device: ``15b3:1021``.
    :ivar names: its interfaces; none without a driver.
    :ivar link: ``up`` if one of them is, else what the first says; empty without interfaces.
    :ivar speed_mbps: of the fastest link that is up; 0 where none is, or it does not tell.
    """

    address: str
    id: str = ""
    driver: str = ""
    names: tuple[str, ...] = ()
    link: str = ""
    speed_mbps: int = 0


@dataclass(frozen=True)
class Firmware:
    """Who made the machine, and its BIOS."""

    vendor: str = ""
    product: str = ""
    bios_vendor: str = ""
    bios_version: str = ""
    bios_date: str = ""
    uefi: bool = False


@dataclass(frozen=True)
class Hardware:
    """What a host is made of, GPUs aside, which its facts have.

    :ivar memory_bytes: what the firmware gave the kernel, in whole blocks, where the kernel tells; else what
        programs can use, which is 2 to 3 % less.
    """

    cpu: Cpu = Cpu()
    memory_bytes: int = 0
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    firmware: Firmware = Firmware()


@dataclass(frozen=True)
class Software:
    """Versions of NVIDIA's parts; empty where a part is not there."""

    driver_version: str = ""
    toolkit_version: str = ""


def hardware_of(answer: Output) -> Hardware:
    """Read the answer to :data:`HARDWARE`. What makes no sense counts as not told."""
    host: Values = {}
    disks: list[tuple[str, Values]] = []
    nics: list[tuple[str, Values]] = []
    values = host
    for word, value in _lines(answer):
        if word in ("disk", "nic"):
            values = {}
            (disks if word == "disk" else nics).append((value, values))
        else:
            (values if word in _OF_DEVICES else host).setdefault(word, []).append(value)
    return Hardware(
        _cpu(host),
        _memory(host),
        tuple(_disk(name, told) for name, told in disks),
        tuple(_nic(address, told) for address, told in nics),
        _firmware(host),
    )


def software_of(answer: Output) -> Software:
    """Read the answer to :data:`SOFTWARE`."""
    lines = dict(_lines(answer))
    toolkit = re.search(
        r"^NVIDIA Container Toolkit CLI version ([0-9][\w.~+-]{0,40})", answer.out, re.MULTILINE
    )
    return Software(lines.get("driver", ""), toolkit[1] if toolkit else "")


Values = dict[str, list[str]]
"""The values of each word, in order."""

_OF_DEVICES = (
    *("sectors", "rotational", "disk-model", "disk-path"),
    *("nic-vendor", "nic-device", "nic-driver", "interface", "speed", "state", "rate"),
)
"""Words about the disk or the NIC that was named last."""

_TRANSPORTS = (
    ("usb", r"/usb\d"),
    ("nvme", r"/nvme"),
    ("virtio", r"/virtio\d"),
    ("sata", r"/ata\d"),
    ("sas", r"/end_device-|/port-\d"),
    ("scsi", r"/host\d"),
)
"""How a disk is connected, by the way to it in /sys; the first that fits."""


def _lines(answer: Output) -> Iterator[tuple[str, str]]:
    for line in answer.out.split("\n", MOST)[:MOST]:
        word, _, value = line.partition(" ")
        yield word, value[:PATH] if word == "disk-path" else " ".join(value.split())[:LONGEST]


def _first(values: Values, word: str) -> str:
    return values.get(word, [""])[0]


def _cpu(values: Values) -> Cpu:
    threads = values.get("thread", [])
    return Cpu(
        _first(values, "cpu-model"),
        sockets=len({thread.partition(" ")[0] for thread in threads}),
        cores=len(set(threads)),
        threads=len(threads),
        numa_nodes=_number(_first(values, "numa-nodes")),
    )


def _memory(values: Values) -> int:
    block = re.fullmatch(r"[0-9a-f]{1,15}", _first(values, "memory-block"))
    blocks = _number(_first(values, "memory-blocks"))
    return blocks * int(block[0], 16) if block else _number(_first(values, "memory-kib")) * 1024


def _disk(name: str, values: Values) -> Disk:
    path = _first(values, "disk-path")
    return Disk(
        name,
        size_bytes=_number(_first(values, "sectors")) * SECTOR,
        model=_first(values, "disk-model"),
        transport=next((transport for transport, way in _TRANSPORTS if re.search(way, path)), ""),
        rotational=_first(values, "rotational") == "1",
    )


def _nic(address: str, values: Values) -> Nic:
    vendor, device = (_first(values, word).removeprefix("0x") for word in ("nic-vendor", "nic-device"))
    states = values.get("state", [])
    link = "up" if "up" in states else "".join(states[:1])
    speeds, rates = map(_number, values.get("speed", [])), map(_rate, values.get("rate", []))
    return Nic(
        address,
        f"{vendor}:{device}" if vendor and device else "",
        _first(values, "nic-driver"),
        tuple(values.get("interface", [])),
        link,
        (max(speeds, default=0) or max(rates, default=0)) if link == "up" else 0,
    )


def _rate(text: str) -> int:
    """The Mb/s of InfiniBand's ``400 Gb/sec (4X NDR)``."""
    found = re.match(r"([0-9]{1,5})(?:\.[0-9])? Gb/sec", text)
    return int(found[1]) * 1000 if found else 0


def _firmware(values: Values) -> Firmware:
    return Firmware(
        _first(values, "sys_vendor"),
        _first(values, "product_name"),
        _first(values, "bios_vendor"),
        _first(values, "bios_version"),
        _first(values, "bios_date"),
        uefi="uefi" in values,
    )


def _number(text: str) -> int:
    """A number that is not negative; 0 for any other text, such as the -1 of a link that is down."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0
