"""Reboots: for which reasons a host needs one, what it would interrupt, and how it is avoided."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.probe import Output, Probe
from provision.resource import Change, Planned
from provision.resources.driver_says import DriverSays, Gpu, OfDriver
from provision.resources.reboot import RebootPolicy

SHELL = "driver/users.sh"

USERS = Probe("", "gpu_users", (SHELL,))
"""Lists the users of the GPUs, the daemons of the driver aside, and the running containers."""


@dataclass(frozen=True)
class Users:
    """Who would notice that the driver goes away.

    :ivar processes: name, pid and name of the container (or empty) of every process that uses the driver.
    :ivar holders: other kernel modules on top of the driver.
    :ivar containers: name and image of every running container.
    """

    processes: tuple[tuple[str, int, str], ...] = ()
    holders: tuple[str, ...] = ()
    containers: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> str:
        """The users in few words, each name once; empty if there are none."""
        found = [name for name, _, _ in self.processes] + [f"module {name}" for name in self.holders]
        return ", ".join(dict.fromkeys(found))

    def impact(self) -> tuple[str, ...]:
        """A line for each."""
        return (
            *(
                f"{name} (pid {pid}){f' in container {box}' if box else ''} uses the GPUs and ends"
                for name, pid, box in self.processes
            ),
            *(f"kernel module {name} uses the driver" for name in self.holders),
            *(f"container {name} ({image}) stops" for name, image in self.containers),
        )


def users(answer: Output) -> Users:
    """Read the answer to :data:`USERS`."""
    rows = [line.split(" ", 3) for line in answer.out.splitlines()]
    boxes = {row[1]: (row[3], row[2]) for row in rows if row[0] == "container" and len(row) == 4}

    def box(cgroup: str) -> str:
        found = re.search(r"[0-9a-f]{64}", cgroup)
        return boxes.get(found[0], (found[0][:12], ""))[0] if found else ""

    return Users(
        tuple((row[3], int(row[1]), box(row[2])) for row in rows if row[0] == "process" and len(row) == 4),
        tuple(row[1] for row in rows if row[0] == "holder"),
        tuple(boxes.values()),
    )


@dataclass(frozen=True)
class BootState:
    """What speaks for a reboot.

    :ivar nouveau: whether the kernel has nouveau loaded.
    :ivar gpus: those that the driver shows; none where it does not answer.
    """

    nouveau: bool = False
    gpus: tuple[Gpu, ...] = ()

    @property
    def pending(self) -> tuple[str, ...]:
        """Modes that take effect at the next boot."""
        found = []
        for gpu in self.gpus:
            for name, now, then in (("ECC", gpu.ecc, gpu.ecc_pending), ("MIG", gpu.mig, gpu.mig_pending)):
                if {now, then} == {"Enabled", "Disabled"}:
                    found.append(f"{name} of GPU {gpu.index} is {now.lower()}, {then.lower()} is pending")
        return tuple(found)


@dataclass(frozen=True)
class Reboot(OfDriver[BootState]):
    """A host that runs as it is configured: nouveau gone, no GPU mode pending.

    The reason that modules have is theirs (:class:`~provision.roles.driver.module.Module`).
    """

    policy: RebootPolicy
    kind: ClassVar[str] = "reboot"
    shell = ("driver/load.sh",)

    def seen(self, says: DriverSays) -> BootState:
        return BootState(says.nouveau, says.gpus)

    def change(self, state: BootState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Reboot for nouveau or pending modes; who would notice is asked before the plan is shown."""
        reasons = [*(["nouveau is loaded and holds the GPUs"] if state.nouveau else []), *state.pending]
        if not reasons:
            return None
        preview = USERS if state.pending else replace(USERS, script=f"nouveau_idle; {USERS.script}")
        return replace(self.policy.change(self.id, "; ".join(reasons)), preview=preview)

    def refine(self, change: Change, answer: Output) -> Change:
        """Unload nouveau instead where nothing uses it; otherwise say who is in the way."""
        if answer.out.startswith("idle\n"):
            return replace(
                change,
                action="unload",
                summary="unload nouveau (nothing uses it, so no reboot is needed)",
                done="[ ! -d /sys/module/nouveau ]",
                script="unload_nouveau",
                needs=None,
                reboot=0,
            )
        return replace(change, impact=users(answer).impact())

    def notes(self, state: BootState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """MIG is the operator's: it is shown and left as it is."""
        partitioned = [gpu.index for gpu in state.gpus if gpu.mig == "Enabled"]
        return (f"MIG is on for GPU {', '.join(partitioned)}; left as it is",) if partitioned else ()
