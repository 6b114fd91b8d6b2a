"""What was ordered × what NVIDIA's driver tells of its GPUs → how they differ, a sentence each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from provision.expectation.amounts import UNITS, amount
from provision.expectation.differences import alike, named
from provision.expectation.settings import Pcie
from provision.probe import Output

FIELDS = (
    "index",
    "name",
    "driver_version",
    "memory.total",
    "ecc.mode.current",
    "pcie.link.gen.max",
    "pcie.link.gen.current",
    "pcie.link.width.current",
    "clocks_event_reasons.active",
)
"""What nvidia-smi is asked for."""

IDLE = 0x1
"""Bit of clocks_event_reasons.active: nothing runs on the GPU (nvml.h, nvmlClocksEventReasonGpuIdle)."""


@dataclass(frozen=True)
class Told:
    """What the driver tells of one GPU.

    :ivar values: by the names of :data:`FIELDS`; those that this nvidia-smi does not offer are not there.
    """

    values: Mapping[str, str]

    def __getitem__(self, field: str) -> str:
        return self.values.get(field, "")

    def number(self, field: str) -> int | None:
        """A value as a number; None where it is none."""
        return int(self[field]) if re.fullmatch(r"[0-9]{1,18}", self[field]) else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs on it, so that its link may be slow; also where that is not told."""
        reasons = re.fullmatch(r"0x([0-9a-fA-F]{1,16})", self["clocks_event_reasons.active"])
        return reasons is None or bool(int(reasons[1], 16) & IDLE)


def told_of(answer: Output) -> list[Told]:
    """Read the fields and their values, a line a GPU; what is no such line is left out."""
    header, *lines = answer.out.splitlines() or [""]
    names = header.split(",")
    rows = ([value.strip() for value in line.split(",")] for line in lines)
    return [Told(dict(zip(names, row, strict=True))) for row in rows if len(row) == len(names)]


def links_up(text: str) -> dict[str, int]:
    """The links of NVLink that are up, by the index of their GPU, from ``nvidia-smi nvlink -s``."""
    found: dict[str, int] = {}
    gpu = ""
    for line in text.splitlines():
        if head := re.match(r"GPU (\d{1,4}):", line, re.ASCII):
            gpu = head[1]
            found[gpu] = 0
        elif gpu and re.match(r"\s*Link \d{1,3}: [\d.]+ GB/s", line, re.ASCII):
            found[gpu] += 1
    return found


def wrong_versions(pattern: str, there: Iterable[Told]) -> str:
    """How the driver's version differs from the one that was ordered; empty if it does not."""
    versions = dict.fromkeys(gpu["driver_version"] for gpu in there)
    wrong = [version for version in versions if not alike(version, pattern)]
    return f"expects driver {pattern}, has {named(wrong)}" if wrong else ""


def wrong_names(pattern: str, there: Iterable[Told]) -> str:
    """The same for the names of GPUs."""
    return _sentence(f"GPUs called {pattern}", there, "name", lambda value: alike(value, pattern))


def wrong_memory(wanted: str, there: Iterable[Told]) -> str:
    """The same for their memory."""
    size = amount(wanted)

    def fits(value: str) -> bool:
        return re.fullmatch(r"[0-9]{1,9}", value) is not None and size.fits(int(value) * UNITS["MiB"])

    return _sentence(f"{wanted} of memory in each GPU", there, "memory.total", fits, " MiB")


def wrong_ecc(there: Iterable[Told], *, on: bool) -> str:
    """The same for ECC."""
    wanted = "Enabled" if on else "Disabled"
    return _sentence(f"ECC to be {wanted}", there, "ecc.mode.current", lambda value: value == wanted)


def wrong_pcie(expect: Pcie, there: Iterable[Told]) -> str:
    """The same for their PCIe links. A link that is idle may be of a lower generation than it can be."""
    found = [f"GPU {gpu['index']} has {text}" for gpu in there for text in _pcie(expect, gpu)]
    wanted = [
        *([f"generation {expect.generation}"] if expect.generation else ()),
        *([f"{expect.width} lanes"] if expect.width else ()),
    ]
    return f"expects PCIe of {' and '.join(wanted)}: {named(found)}" if found else ""


def _pcie(expect: Pcie, gpu: Told) -> Iterator[str]:
    if expect.generation is not None:
        most, now = gpu.number("pcie.link.gen.max"), gpu.number("pcie.link.gen.current")
        if most is None or most < expect.generation:
            yield f"generation {_shown(gpu['pcie.link.gen.max'])} at most"
        elif now is not None and now < expect.generation and not gpu.is_idle:
            yield f"generation {now} under load"
    if expect.width is not None and gpu.number("pcie.link.width.current") != expect.width:
        yield f"{_shown(gpu['pcie.link.width.current'])} lanes"


def wrong_links(wanted: int, there: Iterable[Told], up: Mapping[str, int]) -> str:
    """The same for the links of NVLink that are up, by the index of their GPU."""
    found = [
        f"GPU {gpu['index']} has {up.get(gpu['index'], 0)}"
        for gpu in there
        if up.get(gpu["index"], 0) != wanted
    ]
    return f"expects {wanted} NVLinks up on each GPU: {named(found)}" if found else ""


def _sentence(
    wanted: str, there: Iterable[Told], field: str, fits: Callable[[str], bool], unit: str = ""
) -> str:
    wrong = [f"GPU {gpu['index']} has {_shown(gpu[field])}{unit}" for gpu in there if not fits(gpu[field])]
    return f"expects {wanted}: {named(wrong)}" if wrong else ""


def _shown(value: str) -> str:
    return value or "an unknown value"
