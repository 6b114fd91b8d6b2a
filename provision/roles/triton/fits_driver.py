"""The driver and the GPUs of a host run the CUDA of its instances' images. Nothing changes for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.errors import Refusal
from provision.gpu.advisories import TRITON, known
from provision.gpu.compatibility import all_verdicts
from provision.gpu.driver_branches import Driver, read_driver
from provision.gpu.image_contents import Contents, contents_of
from provision.gpu.models import of_device
from provision.gpu.triton_releases import read_tag
from provision.gpu.verdict import Verdict
from provision.probe import Output, Probe
from provision.resource import Change, Planned, Single, names_of
from provision.resources.signals import DRIVER_LOADED, DRIVER_MOVED


@dataclass(frozen=True)
class Serving:
    """What an instance is to serve with.

    :ivar devices: PCI device ids of the GPUs that it may use; none where it serves on the CPU.
    :ivar address: of the host, on which its ports are published.
    :ivar changed_by: ids of the resources whose change starts it anew.
    """

    unit: str
    image: str
    devices: tuple[int, ...]
    address: str
    changed_by: tuple[str, ...] = ()

    @property
    def contents(self) -> Contents | Verdict | None:
        """What its image holds, or why that is not known; None for an image that is not NVIDIA's."""
        tag = read_tag(self.image)
        return contents_of(tag) if tag and tag.is_nvidias else None

    def verdicts(self, driver: Driver) -> list[Verdict]:
        """What becomes of it, for each kind of its GPUs; none for an image that is not NVIDIA's."""
        contents = self.contents
        if contents is None or not self.devices:
            return []
        return [contents] if isinstance(contents, Verdict) else self.judged(contents, driver)

    def judged(self, contents: Contents, driver: Driver) -> list[Verdict]:
        """What becomes of an image with these contents, for each kind of its GPUs."""
        return all_verdicts(contents, driver, [of_device(device) for device in self.devices])


def refuse_unfit(serving: Sequence[Serving], driver: str) -> None:
    """Refuse instances that no GPU of theirs runs with this driver.

    :param driver: its version, exact or ``580.*``; empty where none is known, of which nothing is said.
    :raises Refusal: with the reason of the first of them.
    """
    version = read_driver(driver)
    for one in serving:
        verdicts = one.verdicts(version) if version else []
        if verdicts and all(verdict.kind == "fail" for verdict in verdicts):
            raise Refusal(f"{one.unit}: {verdicts[0].reason}", hint=verdicts[0].hint or None)


def known_vulnerabilities(image: str, address: str) -> tuple[str, str] | None:
    """What is known against the release of an image, and what to do about it; None where nothing is.

    :param address: on which its ports are published.
    """
    tag = read_tag(image)
    found = known(TRITON, tag.release) if tag and tag.is_nvidias else None
    if tag is None or found is None:
        return None
    said = f"release {tag.release} has {found}"
    hint = f"take release {found.fixed} or later" if found.fixed else ""
    if is_exposed(address):
        hint += f"{', or ' if hint else ''}publish on 127.0.0.1 behind a proxy that authenticates"
    return said, hint


def is_exposed(address: str) -> bool:
    """Whether other machines reach what is published on an address."""
    return not ipaddress.ip_address(address).is_loopback


@dataclass(frozen=True)
class FitsDriver(Single[str]):
    """The host's driver runs the images of all instances.

    :ivar declared: the driver's version that another role declares; empty: the one that runs counts.
    """

    serving: tuple[Serving, ...]
    declared: str = ""
    kind: ClassVar[str] = "fits-driver"

    def question(self) -> Probe:
        """Read the version of the loaded module."""
        return Probe("fits-driver", "running_driver", ("triton/driver.sh",), in_place=True)

    def read(self, answer: Output) -> str:
        """The version; empty where no driver is loaded."""
        return answer.out.strip()

    def bare(self) -> str:
        return ""

    def change(self, state: str, planned: Planned) -> Change | None:  # noqa: ARG002
        """None.

        :raises Refusal: if the driver does not run the image of an instance.
        """
        refuse_unfit(self.serving, self.declared or state)
        return None

    def notes(self, state: str, planned: Planned) -> Sequence[str]:
        """What an operator should know of instances that are started anew, and of those that others reach."""
        units: dict[str, list[str]] = {}
        driver = read_driver(self.declared or state)
        for one in self.serving:
            for note in self._notes(one, driver, planned):
                units.setdefault(note, []).append(one.unit)
        return [f"{', '.join(named)}: {note}" for note, named in units.items()]

    def _notes(self, one: Serving, driver: Driver | None, planned: Planned) -> Iterator[str]:
        anew = bool(planned.positions(one.changed_by))
        moved = bool(planned.positions(names_of((DRIVER_MOVED, DRIVER_LOADED))))
        verdicts = one.verdicts(driver) if driver and (anew or moved) else []
        yield from (f"{found.reason} ({found.hint})" for found in verdicts if found.hint)
        if (anew or is_exposed(one.address)) and (
            known_here := known_vulnerabilities(one.image, one.address)
        ):
            said, hint = known_here
            yield f"{said} ({hint})" if is_exposed(one.address) else said
