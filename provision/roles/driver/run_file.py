"""Drivers that NVIDIA's installer (``NVIDIA-Linux-….run``) put on a host, past its package manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe
from provision.resource import Change, Planned, Single

UNINSTALL = "/usr/bin/nvidia-uninstall"
"""What the installer leaves behind, and no package has (its README, "Installing the NVIDIA driver")."""


@dataclass(frozen=True)
class NoRunFile(Single[str | None]):
    """No driver but that of packages.

    The installer and packages overwrite each other's files, so that libraries and modules of two versions
    stay. When it goes is its owner's decision.
    """

    kind: ClassVar[str] = "run-file"

    def question(self) -> Probe:
        """Look for its program to uninstall it, and ask which version it is."""
        version = "cat /sys/module/nvidia/version 2>/dev/null || echo"
        return Probe("run-file", f"if [ -x {UNINSTALL} ]; then {version}; fi", in_place=True)

    def read(self, answer: Output) -> str | None:
        """The version of its module, empty where it is not loaded; None where there is no such driver."""
        lines = answer.out.splitlines()
        return lines[0].strip() if lines else None

    def bare(self) -> None:
        """There is no such driver."""

    def change(self, state: str | None, planned: Planned) -> Change | None:  # noqa: ARG002
        """Nothing is changed here.

        :raises Refusal: if there is such a driver.
        """
        if state is not None:
            raise Refusal(
                f"NVIDIA's .run installer has put a driver on the host{f' ({state})' if state else ''},"
                " which packages would mix with",
                hint=f"take it away first: {UNINSTALL} --silent, in a window in which nothing uses the GPUs",
            )
        return None
