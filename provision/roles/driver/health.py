"""Health of GPUs: what nvidia-smi reports of errors, links and clocks, and what to think of each value. Pure.

Values that a GPU does not have (``[N/A]``, ``N/A``, ``None``) are no finding; error texts are. Thresholds and
fields as in NVIDIA's documentation of ``nvidia-smi --help-query-gpu`` and its memory error management guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from provision.probe import Output, Probe, words

FIELDS = (
    "index",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total",
    "ecc.mode.current",
    "ecc.mode.pending",
    "retired_pages.pending",
    "remapped_rows.failure",
    "remapped_rows.pending",
    "mig.mode.current",
    "mig.mode.pending",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "clocks_event_reasons.active",
    "temperature.gpu",
    "gpu_recovery_action",
    "inforom.checksum_validation",
    "compute_mode",
)

HEALTH = Probe("gpu health", words("gpu_health", *FIELDS), ("driver/health.sh",))
"""Asks only for fields that this nvidia-smi offers."""

NOTHING = frozenset(
    {"", "[N/A]", "N/A", "None", "[Not Supported]", "[Requested functionality has been deprecated]"}
)

_LOST = re.compile("GPU is lost", re.IGNORECASE)
_NO_HANDLE = re.compile("Unable to determine the device handle", re.IGNORECASE)
_ERROR = re.compile(r"error|ERR!|requires reset|reset required", re.IGNORECASE)
_UNREAD = re.compile(rf"^\[.*\]$|{_LOST.pattern}|{_ERROR.pattern}", re.IGNORECASE)
"""What stands in place of a value that cannot be read."""

SLOWED = {0x08: "hardware slowdown", 0x40: "hardware thermal slowdown", 0x80: "power brake"}
"""Bits of clocks_event_reasons.active that say that something is wrong (nvml.h, nvmlClocksEventReasons)."""
SLOWED_BY_SOFTWARE = 0x20
HOT = 90
"""Degrees Celsius of the GPU from which it is a finding."""

RESET = "drain the host, then: nvidia-smi --gpu-reset, or reboot it"
REPLACE = "take the host out of service and replace the GPU"
COOLING = "look at the fans, the air flow and the power supply of the machine"
LOST = "reboot the host, then look at the slot and the power of the GPU; on the host: dmesg | grep -i xid"
SHARED = "nvidia-smi --compute-mode=DEFAULT"


Verdict = Literal["fail", "warn"]
Finding = tuple[Verdict, str, str]
"""Verdict, message and hint."""


@dataclass(frozen=True)
class Reading:
    """A value that somebody should know of."""

    gpu: str
    verdict: Verdict
    message: str
    hint: str


def readings(answer: Output) -> list[Reading] | None:
    """What is to be said of each GPU; None if nvidia-smi did not answer."""
    header, *lines = answer.out.splitlines() or [""]
    names = header.split(",")
    split = [[value.strip() for value in line.split(",")] for line in lines]
    rows = [dict(zip(names, values, strict=True)) for values in split if len(values) == len(names)]
    others = [line for line, values in zip(lines, split, strict=True) if len(values) != len(names)]
    if not lines or not (answer.ok or rows or any(map(_NO_HANDLE.search, others))):
        return None
    found = [Reading(row.get("index", "?"), *finding) for row in rows for finding in _findings(row)]
    return found + [_remark(line.strip()) for line in others if line.strip()]


def _findings(row: Mapping[str, str]) -> Iterator[Finding]:
    unread: dict[str, list[str]] = {}
    for name, value in row.items():
        if _UNREAD.search(value) and value not in NOTHING:
            unread.setdefault(value, []).append(name)
        elif value not in NOTHING:
            yield from _memory(name, value)
            yield from _condition(name, value, row)
    for value, fields in unread.items():
        more = f" and {len(fields) - 1} more" if fields[1:] else ""
        shown = f"nvidia-smi shows {value} for {fields[0]}{more}"
        if _LOST.search(value):
            yield "fail", "is lost (fell off the bus)", LOST
        elif _ERROR.search(value):
            yield "fail", shown, RESET
        else:
            yield "warn", shown, "on the host, as root: nvidia-smi -q"


def _remark(line: str) -> Reading:
    """A line of nvidia-smi that is not about one GPU's values."""
    at = re.search(r"GPU ?([0-9A-F]+:[0-9A-F]+:[0-9A-F.]+)", line, re.IGNORECASE)
    gpu = at[1] if at else "?"
    if _NO_HANDLE.search(line):
        return Reading(gpu, "fail", f"is lost (fell off the bus): {line}", LOST)
    return Reading(gpu, "fail" if _ERROR.search(line) else "warn", f"nvidia-smi says: {line}", RESET)


def _memory(name: str, value: str) -> Iterator[Finding]:
    """Errors of a GPU's memory."""
    match name:
        case "ecc.errors.uncorrected.volatile.total" if _number(value):
            yield "fail", f"{value} uncorrected memory errors since the last reset", RESET
        case "ecc.errors.uncorrected.aggregate.total" if _number(value):
            hint = "watch the count; if it grows, replace the GPU"
            yield "warn", f"{value} uncorrected memory errors in its life", hint
        case "retired_pages.pending" if value == "Yes":
            yield "fail", "memory pages wait for a reset to be retired", RESET
        case "remapped_rows.failure" if value == "Yes":
            yield "fail", "remapping a row of its memory failed", REPLACE
        case "remapped_rows.pending" if value == "Yes":
            yield "fail", "a row of its memory waits for a reset to be remapped", RESET


def _condition(name: str, value: str, row: Mapping[str, str]) -> Iterator[Finding]:
    """Modes, link, clocks and all else."""
    mode, most = name.removesuffix(".pending"), row.get("pcie.link.width.max", "")
    match name:
        case "ecc.mode.pending" | "mig.mode.pending" if value != (now := row.get(f"{mode}.current", value)):
            yield "warn", f"{mode} is {now} and will be {value} after a reset", RESET
        case "pcie.link.width.current" if value.isdigit() and int(value) < _number(most):
            yield "fail", f"its PCIe link has {value} of {most} lanes", "reseat the GPU or its riser"
        case "clocks_event_reasons.active":
            yield from _clocks(value)
        case "temperature.gpu" if _number(value) >= HOT:
            yield "warn", f"it is {value} °C hot", COOLING
        case "gpu_recovery_action":
            yield "fail", f"the driver asks for a recovery action: {value}", RESET
        case "inforom.checksum_validation" if value != "valid":
            yield "warn", f"its inforom is {value}", REPLACE
        case "compute_mode" if value == "Prohibited":
            yield "fail", "its compute mode is Prohibited", SHARED
        case "compute_mode" if value.startswith("Exclusive"):
            yield "warn", f"its compute mode is {value}: one process only", SHARED


def _clocks(value: str) -> Iterator[Finding]:
    try:
        bits = int(value, 16)
    except ValueError:
        return
    wrong = [what for bit, what in SLOWED.items() if bits & bit]
    if wrong:
        yield "fail", f"its clocks are held down: {', '.join(wrong)}", COOLING
    elif bits & SLOWED_BY_SOFTWARE:
        yield "warn", "its clocks are held down by the thermal limit", COOLING


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0
