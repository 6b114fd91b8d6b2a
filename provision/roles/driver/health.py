"""Health of GPUs: what nvidia-smi reports of errors, links and clocks, and what to think of each value. Pure.

Values that a GPU does not have (``[N/A]``, ``N/A``, ``None``) are no finding; error texts are. Thresholds and
fields as in NVIDIA's documentation of ``nvidia-smi --help-query-gpu`` and its memory error management guide.
"""

from __future__ import annotations

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

SLOWED = {0x08: "hardware slowdown", 0x40: "hardware thermal slowdown", 0x80: "power brake"}
"""Bits of clocks_event_reasons.active that say that something is wrong (nvml.h, nvmlClocksEventReasons)."""
SLOWED_BY_SOFTWARE = 0x20
HOT = 90
"""Degrees Celsius of the GPU from which it is a finding."""

RESET = "drain the host, then: nvidia-smi --gpu-reset, or reboot it"
REPLACE = "take the host out of service and replace the GPU"
COOLING = "look at the fans, the air flow and the power supply of the machine"
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
    lines = answer.out.splitlines()
    if not answer.ok or len(lines) < 2:
        return None
    names = lines[0].split(",")
    found = []
    for line in lines[1:]:
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(names):
            row = dict(zip(names, values, strict=True))
            found += [Reading(row.get("index", "?"), *finding) for finding in _findings(row)]
    return found


def _findings(row: Mapping[str, str]) -> Iterator[Finding]:
    for name, value in row.items():
        if "error" in value.lower() or "requires reset" in value.lower():
            yield "fail", f"{name} reads {value}", RESET
        elif value not in NOTHING:
            yield from _memory(name, value)
            yield from _condition(name, value, row)


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
