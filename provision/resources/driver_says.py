"""What the driver of a host tells: one question to nvidia-smi for all kinds of resources that stand on it."""

from __future__ import annotations

import csv
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from provision.causes.known_messages import hint_for
from provision.errors import visible
from provision.probe import Output, Probe
from provision.resource import Resource, State

SHELL = "shell/driver_says.sh"

LONGEST_ROW = 4096
"""Characters of a line of nvidia-smi that may be a row of its answer."""

OFF = "Disabled"

LOG = "on the host: dmesg | grep -i -e nvrm -e xid; a driver that does not answer again takes a reboot"

IN_CONTAINERS = "Failed to initialize NVML: Unknown Error"
"""Has a known cause in containers, which is none on a host."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi shows it, its modes in nvidia-smi's own words."""

    index: str
    ecc: str = "[N/A]"
    ecc_pending: str = "[N/A]"
    mig: str = "[N/A]"
    mig_pending: str = "[N/A]"
    persistence: str = "[N/A]"
    uuid: str = ""


@dataclass(frozen=True)
class DriverSays:
    """What the driver says.

    :ivar nouveau: whether the kernel has nouveau loaded.
    :ivar fault: why it does not answer for all GPUs; empty where it does, or was not asked.
    :ivar hint: what to do about that.
    """

    nouveau: bool = False
    gpus: tuple[Gpu, ...] = ()
    fault: str = ""
    hint: str = ""


class OfDriver(Resource[State]):
    """What all kinds share whose state the driver tells in one answer."""

    kind: ClassVar[str] = "driver-says"

    @abstractmethod
    def seen(self, says: DriverSays) -> State:
        """Its state, from the answer."""

    @property
    def id(self) -> str:
        """The name of the kind: a host has one of each."""
        return self.kind

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return OfDriver

    @classmethod
    def probe(cls, resources: Sequence[Self]) -> Probe:  # noqa: ARG003
        """Ask the kernel for nouveau, and the driver, where it is loaded, for its GPUs."""
        return Probe("driver-says", "driver_says", (SHELL,), in_place=True, last=True)

    @classmethod
    def states(cls, resources: Sequence[Self], answer: Output) -> Mapping[str, State]:
        """State by id."""
        says = driver_says(answer)
        return {r.id: r.seen(says) for r in resources}

    def bare(self) -> State:
        """Nothing was asked."""
        return self.seen(DriverSays())


def driver_says(answer: Output) -> DriverSays:
    """Read the answer of ``driver_says``; a driver that is not loaded shows no GPU."""
    lines = [line for line in answer.out.splitlines() if len(line) < LONGEST_ROW]
    split = list(csv.reader(lines, skipinitialspace=True))
    rows = [row for row in split if len(row) == 7 and row[0].isdigit()]
    says = DriverSays("nouveau" in lines, tuple(Gpu(*row) for row in rows))
    others = [",".join(row) for row in split if row not in rows and row != ["nouveau"]]
    codes = [int(code[1]) for line in others if (code := re.fullmatch(r"exit (\d{1,3})", line))]
    if not codes:
        return replace(says, fault="its kernel module is not loaded", hint="on the host: modprobe nvidia")
    if codes[-1] == 0 and rows:
        return says
    told = "\n".join(line for line in others if not re.fullmatch(r"exit \d+", line))
    fault, hint = fault_of(Output(codes[-1], told.encode(), answer.stderr))
    return replace(says, fault=fault, hint=hint)


def fault_of(answer: Output) -> tuple[str, str]:
    """Why nvidia-smi on a host does not tell of all GPUs, with its exit code, and what to do."""
    text = f"{answer.out}\n{answer.err}"
    said = [line.strip() for line in text.splitlines() if line.strip()]
    if answer.exit_code == 124:
        return "nvidia-smi: exit 124: it did not answer in time", LOG
    hint = None if IN_CONTAINERS in text else hint_for(text)
    told = visible(said[-1][:200]) if said else "it printed nothing"
    return f"nvidia-smi: exit {answer.exit_code}: {told}", hint or LOG
