"""Drivers that NVIDIA's installer (``NVIDIA-Linux-….run``) put on a host, past its package manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe
from provision.resource import Change, Planned, Resource

UNINSTALL = "/usr/bin/nvidia-uninstall"
"""What the installer leaves behind, and no package has (its README, "Installing the NVIDIA driver")."""


@dataclass(frozen=True)
class NoRunFile(Resource):
    """No driver but that of packages.

    The installer and packages overwrite each other's files, so that libraries and modules of two versions
    stay. When it goes is its owner's decision.
    """

    kind: ClassVar[str] = "run-file"

    @property
    def id(self) -> str:
        """A host has one such driver at most."""
        return "run-file"

    @classmethod
    def probe(cls, resources: Sequence[NoRunFile]) -> Probe:  # noqa: ARG003
        """Look for its program to uninstall it, and ask which version it is."""
        return Probe(
            "run-file", f"if [ -x {UNINSTALL} ]; then cat /sys/module/nvidia/version 2>/dev/null || echo; fi"
        )

    @classmethod
    def states(cls, resources: Sequence[NoRunFile], answer: Output) -> Mapping[str, str | None]:
        """The version of its module, empty where it is not loaded; None where there is no such driver."""
        found = answer.out.splitlines()
        return dict.fromkeys((r.id for r in resources), found[0].strip() if found else None)

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
