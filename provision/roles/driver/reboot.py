"""Reboots: for which reasons a host needs one, what it would interrupt, and how it is avoided."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.probe import Output, Probe, quote
from provision.resource import Change, Planned, Resource

USERS = r"""{
  find /proc/[0-9]*/fd -maxdepth 1 -lname '/dev/nvidia*' 2>/dev/null
  grep -l -s -E '/lib(cuda|nvidia-ml)\.so' /proc/[0-9]*/maps
} | cut -d/ -f3 | sort -un | while read -r pid; do
  read -r name 2>/dev/null <"/proc/$pid/comm" || continue
  case $name in nvidia-persiste* | nv-fabricmanage*) continue ;; esac
  printf 'process %s %s %s\n' "$pid" "$(tr '\n ' '  ' <"/proc/$pid/cgroup" | tr -d ' ')" "$name"
done
for holder in /sys/module/nvidia/holders/*; do
  case ${holder##*/} in '*' | nvidia_uvm | nvidia_drm | nvidia_modeset | nvidia_peermem) continue ;; esac
  echo "holder ${holder##*/}"
done
if command -v docker >/dev/null 2>&1; then
  timeout 20 docker ps --no-trunc --format 'container {{.ID}} {{.Image}} {{.Names}}'
fi
:"""
"""Sh text that lists the users of the GPUs, the daemons of the driver aside, and the running containers."""


NOUVEAU_IDLE = """if [ "$(cat /sys/module/nouveau/refcnt 2>/dev/null)" = 0 ] &&
  ! grep -q -s nouveau /proc/fb; then echo idle; fi
"""
"""Sh text that prints ``idle`` where nothing uses nouveau: no open device, no console on its framebuffer."""


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
class RebootPolicy:
    """When a host may be rebooted, and how.

    :ivar boot_id: of the boot in which the plan is made; a host that was booted since is not rebooted again.
    :ivar allowed: whether the settings allow it; otherwise the command line must.
    :ivar timeout: seconds within which the host must be back.
    :ivar causes: ids of resources whose changes make a reboot necessary where GPUs are in use. Without
        permission they are not begun.
    """

    boot_id: str
    allowed: bool = False
    timeout: int = 900
    causes: tuple[str, ...] = ()

    def change(self, resource: str, reason: str, found: Users, *, causes: tuple[str, ...] = ()) -> Change:
        """The reboot itself, as a change of ``resource``."""
        return Change(
            resource=resource,
            action="reboot",
            summary="reboot the host",
            reason=reason,
            done=f"booted_since {quote(self.boot_id)}",
            script=f"reboot_soon {quote(reason)}",
            needs="" if self.allowed else "reboot",
            impact=found.impact(),
            causes=causes,
            reboot=self.timeout,
        )


@dataclass(frozen=True)
class BootState:
    """What speaks for a reboot.

    :ivar nouveau: whether the kernel has nouveau loaded.
    :ivar modes: for each GPU its index, ECC mode now and pending, MIG mode now and pending, as nvidia-smi
        prints them; empty where the driver does not answer.
    """

    nouveau: bool = False
    modes: tuple[tuple[str, str, str, str, str], ...] = ()

    @property
    def pending(self) -> tuple[str, ...]:
        """Modes that take effect at the next boot."""
        found = []
        for index, ecc, ecc_pending, mig, mig_pending in self.modes:
            for name, now, then in (("ECC", ecc, ecc_pending), ("MIG", mig, mig_pending)):
                if {now, then} == {"Enabled", "Disabled"}:
                    found.append(f"{name} of GPU {index} is {now.lower()}, {then.lower()} is pending")
        return tuple(found)


@dataclass(frozen=True)
class Reboot(Resource):
    """A host that runs as it is configured: nouveau gone, no GPU mode pending.

    The reason that modules have is theirs (:class:`~provision.resources.module.Module`).
    """

    policy: RebootPolicy
    kind: ClassVar[str] = "reboot"

    @property
    def id(self) -> str:
        """A host boots as a whole."""
        return "reboot"

    @classmethod
    def probe(cls, resources: Sequence[Reboot]) -> Probe:  # noqa: ARG003
        """Ask the kernel for nouveau, and the driver, where it is loaded, for modes; bounded, it may hang."""
        fields = "index,ecc.mode.current,ecc.mode.pending,mig.mode.current,mig.mode.pending"
        return Probe(
            "reboot",
            "if [ -d /sys/module/nouveau ]; then echo nouveau; fi\n"
            "if [ -e /proc/driver/nvidia/version ]; then\n"
            f"  timeout 10 nvidia-smi --query-gpu={fields} --format=csv,noheader\n"
            "fi\n:",
        )

    @classmethod
    def states(cls, resources: Sequence[Reboot], answer: Output) -> Mapping[str, BootState]:
        """The state; lines of nvidia-smi that are no row (its errors) are verify's business."""
        rows = list(csv.reader(answer.out.splitlines(), skipinitialspace=True))
        modes = tuple((a, b, c, d, e) for a, b, c, d, e in (row for row in rows if len(row) == 5))
        return {r.id: BootState(["nouveau"] in rows, modes) for r in resources}

    def change(self, state: BootState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Reboot for nouveau or pending modes; who would notice is asked before the plan is shown."""
        reasons = [*(["nouveau is loaded and holds the GPUs"] if state.nouveau else []), *state.pending]
        if not reasons:
            return None
        idle = "" if state.pending else NOUVEAU_IDLE
        return replace(self.policy.change(self.id, "; ".join(reasons), Users()), look=f"{idle}{USERS}")

    def looked(self, change: Change, answer: Output) -> Change:
        """Unload nouveau instead where nothing uses it; otherwise say who is in the way."""
        if answer.out.startswith("idle\n"):
            return replace(
                change,
                action="unload",
                summary="unload nouveau (nothing uses it, so no reboot is needed)",
                done="[ ! -d /sys/module/nouveau ]",
                script="unload_nouveau",
                needs="",
                reboot=0,
            )
        return replace(change, impact=users(answer).impact())

    def notes(self, state: BootState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """MIG is the operator's: it is shown and left as it is."""
        partitioned = [index for index, _, _, mig, _ in state.modes if mig == "Enabled"]
        return (f"MIG is on for GPU {', '.join(partitioned)}; left as it is",) if partitioned else ()
