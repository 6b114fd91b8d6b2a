"""Values that NVIDIA gives its own hosts, by the kind of host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ProfileName = Literal["generic", "h100"]


@dataclass(frozen=True)
class Profile:
    """What a profile adds to the settings.

    :ivar kernel_args: on the kernel's command line, before those of the settings.
    :ivar governor: of CPU frequency, where the settings name none; empty: it is left as it is.
    """

    kernel_args: tuple[str, ...] = ()
    governor: str = ""


PROFILES: Mapping[ProfileName, Profile] = {
    "generic": Profile(),
    "h100": Profile(
        ("init_on_alloc=0", "iommu=pt", "pci=realloc=off", "pci=disable_acs_redir=pci:0:0"), "performance"
    ),
}
"""``generic`` adds nothing. ``h100`` is NVIDIA's, from the nvidia-tuned profiles of its skyhook-packages:

- ``init_on_alloc=0`` (all profiles): pages are not cleared when they are allocated. That is a protection
  which the host then does not have.
- ``iommu=pt`` (H100): devices of the host are not translated.
- ``pci=realloc=off`` (H100): BARs stay where the firmware put them.
- ``pci=disable_acs_redir=pci:0:0`` (H100): no redirection by ACS, so that GPUs and NICs reach each other
  directly. A host that hands devices to virtual machines needs ACS.
- governor ``performance`` (all profiles).

Their serial console, which depends on the board, and their huge pages and isolated CPUs, which Triton does
not need, are not taken over.
"""
