"""Drivers that came to a host past its package manager: by NVIDIA's installer (``.run``), or copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, by_word, words
from provision.resource import Change, Planned, Single

UNINSTALL = "/usr/bin/nvidia-uninstall"
"""What the installer leaves behind, and no package has (its README, "Installing the NVIDIA driver")."""

FOREIGN = Probe("foreign-driver", words("foreign_driver", UNINSTALL), ("driver/foreign.sh",), in_place=True)
"""Asks what of such a driver is there."""


@dataclass(frozen=True)
class Foreign:
    """What of such a driver is there.

    :ivar installer: the version of the loaded module, where the installer was there; "" where none is
        loaded.
    :ivar libraries: files that programs load as the driver's library, of another version than the module.
    """

    installer: str | None = None
    libraries: tuple[str, ...] = ()

    def fault(self) -> tuple[str, str] | None:
        """What is wrong, and what to do about it."""
        if self.installer is not None:
            version = f" ({self.installer})" if self.installer else ""
            return (
                f"NVIDIA's .run installer has put a driver on the host{version},"
                " which packages would mix with",
                f"take it away first: {UNINSTALL} --silent, in a window in which nothing uses the GPUs",
            )
        if self.libraries:
            one = len(self.libraries) == 1
            belongs, hides = ("belongs", "hides") if one else ("belong", "hide")
            version = self.libraries[0].partition(".so.")[2]
            return (
                f"programs load {', '.join(self.libraries)}, which {belongs} to no package and {hides}"
                " the library of the driver's packages",
                f"on the host: find /usr -name '*.so.{version}' shows what came with it;"
                " remove that, then run ldconfig",
            )
        return None


def parse(answer: Output) -> Foreign:
    """Read the answer to :data:`FOREIGN`."""
    found = by_word(answer.out)
    installers = found.get("installer")
    return Foreign(installers[0] if installers else None, tuple(found.get("library", ())))


@dataclass(frozen=True)
class NoForeignDriver(Single[Foreign]):
    """No driver but that of packages.

    The installer and packages overwrite each other's files, so that libraries and modules of two versions
    stay. When it goes is its owner's decision.
    """

    kind: ClassVar[str] = "foreign-driver"

    def question(self) -> Probe:
        return FOREIGN

    def read(self, answer: Output) -> Foreign:
        return parse(answer)

    def bare(self) -> Foreign:
        """There is no such driver."""
        return Foreign()

    def change(self, state: Foreign, planned: Planned) -> Change | None:  # noqa: ARG002
        """Nothing is changed here.

        :raises Refusal: if there is such a driver.
        """
        if fault := state.fault():
            raise Refusal(fault[0], hint=fault[1])
        return None
