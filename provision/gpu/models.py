"""Models of NVIDIA's GPUs, by the names that people use and by their PCI device ids."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

from provision.gpu.pci import FIRST, LAST, Architecture, architecture_of, first_branch, last_branch

Capability = tuple[int, int]
"""Compute capability."""


@dataclass(frozen=True)
class Model:
    """A GPU model, or what is known of one.

    :ivar data_centre: whether it is a data centre GPU, which CUDA's forward compatibility is for; None where
        that is not known.
    :ivar devices: its PCI device ids.
    """

    name: str
    capability: Capability
    data_centre: bool | None
    devices: tuple[int, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """Its generation."""
        number = self.capability[0] * 10 + self.capability[1]
        return max((a for a in Architecture if a.value <= number), key=lambda a: a.value)

    @property
    def first_branch(self) -> int:
        """The first driver branch that drives it; 0 where none that matters is known."""
        return min(map(first_branch, self.devices), default=FIRST.get(self.architecture, 0))

    @property
    def last_branch(self) -> int | None:
        """The last driver branch that drives it; None where it has not ended."""
        return last_branch(self.devices[0]) if self.devices else LAST.get(self.architecture)


def _data_centre(name: str, capability: Capability, *devices: int) -> Model:
    return Model(name, capability, True, devices)


DATA_CENTRE = (
    _data_centre("K80", (3, 7), 0x102D),
    _data_centre("M4", (5, 2), 0x1431),
    _data_centre("M6", (5, 2), 0x13F3),
    _data_centre("M10", (5, 0), 0x13BD),
    _data_centre("M40", (5, 2), 0x17FD),
    _data_centre("M60", (5, 2), 0x13F2),
    _data_centre("P100", (6, 0), 0x15F7, 0x15F8, 0x15F9, 0x15FC),
    _data_centre("P4", (6, 1), 0x1BB3),
    _data_centre("P6", (6, 1), 0x1BB4),
    _data_centre("P10", (6, 1), 0x1B39),
    _data_centre("P40", (6, 1), 0x1B38),
    _data_centre("V100", (7, 0), *range(0x1DB1, 0x1DB9), 0x1DF5),
    _data_centre("V100S", (7, 0), 0x1DF6),
    _data_centre("T4", (7, 5), 0x1EB8),
    _data_centre("T10", (7, 5), 0x1E35, 0x1E37),
    _data_centre("T40", (7, 5), 0x1E38),
    _data_centre("A100", (8, 0), 0x20B0, 0x20B1, 0x20B2, 0x20B3, 0x20B5, 0x20B6, 0x20F0, 0x20F1, 0x20F2),
    _data_centre("A100X", (8, 0), 0x20B8),
    _data_centre("A800", (8, 0), 0x20BD, 0x20F3, 0x20F5, 0x20F6),
    _data_centre("AX800", (8, 0), 0x20FD),
    _data_centre("A30", (8, 0), 0x20B7),
    _data_centre("A30X", (8, 0), 0x20B9),
    _data_centre("A40", (8, 6), 0x2235),
    _data_centre("A10", (8, 6), 0x2236),
    _data_centre("A10G", (8, 6), 0x2237),
    _data_centre("A10M", (8, 6), 0x2238),
    _data_centre("A16", (8, 6), 0x25B6),
    _data_centre("A2", (8, 6), 0x25B6),
    _data_centre("L40", (8, 9), 0x26B5, 0x26F5),
    _data_centre("L40G", (8, 9), 0x26B8),
    _data_centre("L40S", (8, 9), 0x26B9),
    _data_centre("L20", (8, 9), 0x26B7, 0x26BA),
    _data_centre("L4", (8, 9), 0x27B8),
    _data_centre("L2", (8, 9), 0x27B6),
    _data_centre("H100", (9, 0), 0x2330, 0x2331, 0x2313, 0x2321, *range(0x2336, 0x233A), 0x233D, 0x237E),
    _data_centre("H800", (9, 0), 0x2322, 0x2324, 0x233A),
    _data_centre("H200", (9, 0), 0x2335, 0x233B),
    _data_centre("H20", (9, 0), 0x2328, 0x2329, 0x232C, 0x230C, 0x230E),
    _data_centre("GH200", (9, 0), 0x2342, 0x2348),
    _data_centre("B100", (10, 0), 0x2920, 0x29BC),
    _data_centre("B200", (10, 0), 0x2901, 0x2909),
    _data_centre("GB200", (10, 0), 0x2941),
    _data_centre("B300", (10, 3), 0x3182),
    _data_centre("GB300", (10, 3), 0x31A1, 0x31C2, 0x31C3),
    _data_centre("RTX PRO 6000 Blackwell Server Edition", (12, 0), 0x2BB5),
    _data_centre("RTX PRO 4500 Blackwell Server Edition", (12, 0), 0x2C3A),
)
"""Data centre GPUs and their compute capabilities, which are from memory of NVIDIA's list "CUDA GPUs".

Ids: the table of compatible GPUs in README.md of NVIDIA's open-gpu-kernel-modules, 595.45.04; what is older
than Turing, and what that table lacks: the PCI ID repository (pci.ids of 2026-08-22).
"""

FAMILIES = (
    ("GeForce RTX 50 series", (12, 0), r"rtx50[5-9]0\w*"),
    ("GeForce RTX 40 series", (8, 9), r"rtx40[5-9]0\w*"),
    ("GeForce RTX 30 series", (8, 6), r"rtx30[5-9]0\w*"),
    ("GeForce RTX 20 series", (7, 5), r"rtx20[5-8]0\w*"),
    ("GeForce GTX 16 series", (7, 5), r"gtx16[3-6]0\w*"),
    ("GeForce GTX 10 series", (6, 1), r"gtx10[1-8]0\w*"),
    ("RTX PRO Blackwell", (12, 0), r"rtxpro\d{3,4}\w*"),
    ("RTX Ada", (8, 9), r"rtx\d{4}(e|sff)?ada\w*"),
    ("RTX A series", (8, 6), r"rtxa\d{3,4}\w*"),
    ("Quadro RTX", (7, 5), r"quadrortx[3-8]000\w*"),
    ("TITAN RTX", (7, 5), r"titanrtx"),
    ("TITAN V", (7, 0), r"titanv"),
    ("GB10", (12, 1), r"gb10"),
)
"""Families of other GPUs, with a pattern for their names without blanks."""

CAPABILITIES = (
    *((3, 5), (3, 7), (5, 0), (5, 2), (5, 3), (6, 0), (6, 1), (6, 2), (7, 0), (7, 2), (7, 5), (8, 0), (8, 6)),
    *((8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)),
)
"""Compute capabilities that GPUs have."""

_BRANDS = ("nvidia", "tesla", "geforce", "gpu")


def of_device(device: int) -> Model | None:
    """What is known of a GPU by its PCI device id; None for one of no known generation.

    What is not in the table counts as no data centre GPU: later ones need drivers that run CUDA 13 anyway.
    """
    for model in DATA_CENTRE:
        if device in model.devices:
            return replace(model, devices=(device,))
    architecture = architecture_of(device)
    if architecture is None:
        return None
    name = f"{architecture.name.title()} GPU (PCI id {device:04x})"
    return Model(name, divmod(architecture.value, 10), False, (device,))


def find(text: str) -> Model | None:
    """The model that a text names: ``h100``, ``NVIDIA L40S``, ``A100-SXM4-80GB``.

    ``8.9``, ``sm_89``, ``sm89`` and ``89`` are a compute capability.
    """
    if capability := _capability(text):
        name = f"a GPU of compute capability {capability[0]}.{capability[1]}"
        return Model(name, capability, None) if capability in CAPABILITIES else None
    words = [word for word in re.split(r"[\s_-]+", text.lower()) if word and word not in _BRANDS]
    for count in range(len(words), 0, -1):
        joined = "".join(words[:count])
        for model in DATA_CENTRE:
            if joined == model.name.lower().replace(" ", ""):
                return model
        for name, capability, pattern in FAMILIES:
            if re.fullmatch(pattern, joined, re.ASCII):
                return Model(f"{name} ({' '.join(words).upper()})", capability, False)
    return None


def similar(text: str) -> str:
    """The names that a text may mean which names no model; empty if none is close."""
    if capability := _capability(text):
        major, minor = capability
        near = [one for one in CAPABILITIES if one[0] == major and abs(one[1] - minor) <= 1]
        return f"{near[-1][0]}.{near[-1][1]}" if near else ""
    if re.fullmatch(r"\d{1,2}", text.strip(), re.ASCII):
        return f"{int(text)}.0" if (int(text), 0) in CAPABILITIES else ""
    word = re.sub(r"\b(nvidia|tesla)\b", "", text.lower()).strip()
    if workstation := re.match(r"rtx[\s_-]*([456]000)\b(?!.*\bada\b)", word, re.ASCII):
        return f"Quadro RTX {workstation[1]} or RTX {workstation[1]} Ada"
    names = {model.name.lower(): model.name for model in DATA_CENTRE}
    close = difflib.get_close_matches(word, names, 1, 0.8)
    return names[close[0]] if close else ""


def _capability(text: str) -> Capability | None:
    number = re.fullmatch(r"(\d{1,2})\.(\d)|(?:sm_?)?(\d{1,2})(\d)a?", text.strip().lower(), re.ASCII)
    return (int(number[1] or number[3]), int(number[2] or number[4])) if number else None
