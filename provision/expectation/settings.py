"""Settings under ``expect:``, a variable of hosts that belongs to no role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from provision.expectation.amounts import Size
from provision.gpu import models
from provision.role import ImpossibleError, Settings

EXPECT = "expect"
"""The host's variable with its :class:`Expect`."""

PCI_ID = r"^[0-9a-f]{4}:[0-9a-f]{4}$"
PciId = Annotated[str, StringConstraints(pattern=PCI_ID)]
Slot = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")]
Speed = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9])? (Mb/s|Gb/s)$")]
Count = Annotated[int, Field(ge=0, le=1000)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Pcie(Settings):
    """How each GPU is connected."""

    generation: int | None = Field(default=None, ge=1, le=7)
    """Highest generation of PCIe that GPU and slot have together. Links are slower while they are idle."""
    width: Literal[1, 2, 4, 8, 16] | None = None
    """Lanes in use."""


class Gpus(Settings):
    """The GPUs of a host."""

    model: Text | None = None
    """A model such as ``H100`` or ``L40S``, or a PCI id such as ``10de:2330``."""
    count: Count | None = None
    """How many of that model; without a model, how many in all."""
    slots: tuple[Slot, ...] = ()
    """PCI addresses of all of them, so that the one that is missing is named."""
    name: Text | None = None
    """Name that the driver gives each of them; ``*`` stands for any text. Only ``verify`` looks."""
    memory: Size | None = None
    """Memory of each GPU: ``about 80 GiB``, ``at least 81000 MiB``. Only ``verify`` looks."""
    pcie: Pcie | None = None
    """Only ``verify`` looks."""
    nvlinks: Count | None = None
    """Links of NVLink that are up, of each GPU. Only ``verify`` looks."""
    ecc: bool | None = None
    """Whether ECC is on. Only ``verify`` looks."""

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str | None) -> str | None:
        """Refuse a model of which no PCI id is known: nothing could be compared."""
        if model is None or pci_id(model) is not None:
            return model
        found = models.find(model)
        if found is None or not found.devices:
            close = models.similar(model)
            raise ImpossibleError(
                f"no PCI id is known of {model[:60]!r}",
                hint=f"{f'did you mean {close}? Or ' if close else ''}give its PCI id, as 10de:2330",
            )
        return model

    @model_validator(mode="after")
    def _go_together(self) -> Gpus:
        if twice := [slot for number, slot in enumerate(self.slots) if slot in self.slots[:number]]:
            raise ImpossibleError(f"{twice[0]} is there twice", "name each GPU once", ("slots",))
        if self.slots and self.count not in (None, len(self.slots)):
            raise ImpossibleError(
                f"count is {self.count}, and slots has {len(self.slots)}", hint="leave out count"
            )
        return self

    @property
    def wanted(self) -> int | None:
        """How many there are to be."""
        return len(self.slots) if self.slots else self.count


class Nics(Settings):
    """Network functions on the PCI bus that are alike; each port of most cards is one."""

    count: Count = 1
    """How many there are that fit all that is said here."""
    id: PciId | None = None
    """PCI id, as ``lspci -n`` shows it."""
    name: Text | None = None
    """Name of the interface; ``*`` stands for any text."""
    driver: Text | None = None
    """The kernel's driver."""
    speed: Speed | None = None
    """Speed of the link, such as ``400 Gb/s``; a link must be up to have one."""


class Disks(Settings):
    """Disks that are alike."""

    count: Count = 1
    """How many there are that fit all that is said here."""
    size: Size | None = None
    """Size of each: ``about 3.84 TB``, ``at least 900 GB``."""
    model: Text | None = None
    """Model as the disk tells it; ``*`` stands for any text."""
    transport: Literal["nvme", "sas", "sata", "scsi", "virtio", "usb"] | None = None
    """How it is connected. Disks on USB count only where this says so."""


class Cpu(Settings):
    """The processors of a host."""

    sockets: Count | None = None
    """Processors."""
    cores: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Cores of all processors together."""
    threads: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Threads of all of them together."""
    model: Text | None = None
    """Model as the kernel names it; ``*`` stands for any text."""


class Firmware(Settings):
    """The firmware of a host."""

    secure_boot: bool | None = None
    """Whether Secure Boot is on."""
    bios: Text | None = None
    """Version of the BIOS; ``*`` stands for any text."""


class Expect(Settings):
    """What a host was ordered with. What is left out is not looked at.

    All but ``driver``, and what of ``gpus`` only ``verify`` looks at, is compared before anything changes.
    """

    gpus: Gpus | None = None
    """The GPUs."""
    memory: Size | None = None
    """Memory of the host: ``about 2 TiB``, which is within 3 %, or ``at least 2000 GiB``."""
    nics: tuple[Nics, ...] = ()
    """Network functions, an item for each kind."""
    disks: tuple[Disks, ...] = ()
    """Disks, an item for each kind."""
    cpu: Cpu | None = None
    """The processors."""
    firmware: Firmware | None = None
    """The firmware."""
    driver: Text | None = None
    """Version of NVIDIA's driver that runs; ``*`` stands for any text. Only ``verify`` looks."""

    differences: Literal["refused", "allowed"] = "refused"
    """``refused``: a host that differs is left alone; ``allowed``: it is told, and the host is changed."""

    def names(self, path: str = "") -> bool:
        """Whether a setting such as ``gpus.memory`` is given."""
        value: object = self
        for step in filter(None, path.split(".")):
            value = getattr(value, step, None)
        return value is not None


def pci_id(model: str) -> int | None:
    """The device of a PCI id of NVIDIA's; None for what is none."""
    found = re.fullmatch(r"10de:([0-9a-f]{4})", model.lower())
    return int(found[1], 16) if found else None


EXAMPLE: Mapping[str, Any] = {
    "gpus": {
        "model": "H100",
        "count": 2,
        "slots": ["0000:18:00.0", "0000:3b:00.0"],
        "name": "NVIDIA H100*",
        "memory": "about 80 GiB",
        "pcie": {"generation": 5, "width": 16},
        "nvlinks": 18,
        "ecc": True,
    },
    "memory": "about 2 TiB",
    "nics": [{"count": 8, "id": "15b3:1021", "name": "ens*", "driver": "mlx5_core", "speed": "400 Gb/s"}],
    "disks": [{"count": 8, "size": "at least 3.8 TB", "model": "SAMSUNG*", "transport": "nvme"}],
    "cpu": {"sockets": 2, "cores": 112, "threads": 224, "model": "*Platinum 8480*"},
    "firmware": {"secure_boot": False, "bios": "2.1.*"},
    "driver": "580.*",
}
"""An order as an inventory gives it."""
