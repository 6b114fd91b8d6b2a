"""Health of GPUs: what nvidia-smi reports of errors, links and clocks, and what to think of each value. Pure.

Values that a GPU does not have (``[N/A]``, ``N/A``, ``None``) are no finding; error texts are. Thresholds and
fields as in NVIDIA's documentation of ``nvidia-smi --help-query-gpu`` and its memory error management guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True)
class Reading:
    """A value that somebody should know of."""

    gpu: str
    verdict: Literal["fail", "warn"]
    message: str
    hint: str | None = None


Finding = tuple[Literal["fail", "warn"], str, str | None]


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
        elif value not in NOTHING and name in _RULES:
            finding = _RULES[name](value, row)
            if finding:
                yield finding


def _count(
    verdict: Literal["fail", "warn"], what: str, hint: str
) -> Callable[[str, Mapping[str, str]], Finding | None]:
    def rule(value: str, _: Mapping[str, str]) -> Finding | None:
        return (verdict, f"{value} {what}", hint) if value.isdigit() and int(value) else None

    return rule


def _yes(what: str, hint: str) -> Callable[[str, Mapping[str, str]], Finding | None]:
    def rule(value: str, _: Mapping[str, str]) -> Finding | None:
        return ("fail", what, hint) if value == "Yes" else None

    return rule


def _pending(name: str, hint: str) -> Callable[[str, Mapping[str, str]], Finding | None]:
    def rule(value: str, row: Mapping[str, str]) -> Finding | None:
        now = row.get(f"{name}.current", value)
        return ("warn", f"{name} is {now} and will be {value} after a reset", hint) if now != value else None

    return rule


def _width(value: str, row: Mapping[str, str]) -> Finding | None:
    most = row.get("pcie.link.width.max", value)
    if not (value.isdigit() and most.isdigit()) or int(value) >= int(most):
        return None
    return "fail", f"its PCIe link has {value} of {most} lanes", "reseat the GPU or its riser"


def _clocks(value: str, _: Mapping[str, str]) -> Finding | None:
    try:
        bits = int(value, 16)
    except ValueError:
        return None
    wrong = [what for bit, what in SLOWED.items() if bits & bit]
    if wrong:
        return "fail", f"its clocks are held down: {', '.join(wrong)}", COOLING
    if bits & SLOWED_BY_SOFTWARE:
        return "warn", "its clocks are held down by the thermal limit", COOLING
    return None


def _hot(value: str, _: Mapping[str, str]) -> Finding | None:
    return ("warn", f"it is {value} °C hot", COOLING) if value.isdigit() and int(value) >= HOT else None


def _action(value: str, _: Mapping[str, str]) -> Finding | None:
    return "fail", f"the driver asks for a recovery action: {value}", RESET


def _inforom(value: str, _: Mapping[str, str]) -> Finding | None:
    return None if value == "valid" else ("warn", f"its inforom is {value}", REPLACE)


def _compute_mode(value: str, _: Mapping[str, str]) -> Finding | None:
    if value == "Prohibited":
        return "fail", "its compute mode is Prohibited", "nvidia-smi --compute-mode=DEFAULT"
    if value.startswith("Exclusive"):
        return "warn", f"its compute mode is {value}: one process only", "nvidia-smi --compute-mode=DEFAULT"
    return None


_RULES: Mapping[str, Callable[[str, Mapping[str, str]], Finding | None]] = {
    "ecc.errors.uncorrected.volatile.total": _count(
        "fail", "uncorrected memory errors since the last reset", RESET
    ),
    "ecc.errors.uncorrected.aggregate.total": _count(
        "warn", "uncorrected memory errors in its life", "watch the count; if it grows, replace the GPU"
    ),
    "ecc.mode.pending": _pending("ecc.mode", RESET),
    "retired_pages.pending": _yes("memory pages wait for a reset to be retired", RESET),
    "remapped_rows.failure": _yes("remapping a row of its memory failed", REPLACE),
    "remapped_rows.pending": _yes("a row of its memory waits for a reset to be remapped", RESET),
    "mig.mode.pending": _pending("mig.mode", RESET),
    "pcie.link.width.current": _width,
    "clocks_event_reasons.active": _clocks,
    "temperature.gpu": _hot,
    "gpu_recovery_action": _action,
    "inforom.checksum_validation": _inforom,
    "compute_mode": _compute_mode,
}
