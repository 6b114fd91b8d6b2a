"""Ubuntu's kernels: which metapackage of ``linux-modules-nvidia`` follows the one that runs."""

from __future__ import annotations

import re

from provision.facts import Facts

FIRST_SERIES = {"22.04": "5.15", "24.04": "6.8"}
"""The kernel that a release came with; later ones are its hardware enablement (HWE) kernels."""

STAYING = ("generic", "lowlatency", "nvidia", "nvidia-lowlatency")
"""Flavours whose plain metapackage stays with the first series, and ``-hwe-RELEASE`` goes on."""

ROLLING = ("aws", "azure", "gcp", "oracle")
"""Flavours of clouds: the plain metapackage goes on, and ``-lts-RELEASE`` stays."""


def kernel_of_metapackage(facts: Facts) -> str:
    """The end of the metapackage's name (``generic-hwe-24.04``); empty for a kernel of another make.

    Source: Ubuntu package listings of linux-restricted-modules, jammy-updates and noble-updates.
    """
    first = FIRST_SERIES.get(facts.version)
    parts = re.fullmatch(r"(\d+\.\d+)\.\d+-\d+-([a-z0-9-]+)", facts.kernel)
    if facts.os != "ubuntu" or first is None or parts is None:
        return ""
    series, flavour = parts.groups()
    if flavour.removesuffix("-64k") in STAYING:
        return flavour if series == first else f"{flavour}-hwe-{facts.version}"
    if flavour.removesuffix("-64k") in ROLLING:
        return f"{flavour}-lts-{facts.version}" if series == first else flavour
    return ""
