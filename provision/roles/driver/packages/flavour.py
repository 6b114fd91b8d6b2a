"""Open or proprietary kernel modules: chosen from the GPUs, with the reason; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from provision.errors import Refusal
from provision.facts import Gpu
from provision.gpu.pci import architecture_of, first_branch, last_branch, needs_open, supports_open
from provision.roles.driver.packages.table import ANY

OPEN_IS_DEFAULT = 560
"""Branch from which the open modules are NVIDIA's default (driver installation guide, Kernel Modules)."""

OPEN_EXISTS = 515
"""First branch with open modules (release notes of 515.43.04)."""

PROPRIETARY_IS_GONE = 620
"""First branch without proprietary modules (driver installation guide of release 620, Recent Updates)."""

Modules = Literal["open", "proprietary"]


@dataclass(frozen=True)
class Flavour:
    """The kernel modules to use, and why, in words for the plan."""

    modules: Modules
    reason: str


def choose_flavour(wanted: Modules | Literal["auto"], branch: int, gpus: Sequence[Gpu]) -> Flavour:
    """The kernel modules of ``branch`` that drive all ``gpus``.

    :raises Refusal: where there are none, or ``wanted`` names others.
    """
    devices = sorted({gpu.device for gpu in gpus})
    _refuse_wrong_branches(branch, devices)
    closed = [device for device in devices if not supports_open(device)]
    opened = [device for device in devices if needs_open(device)]
    if closed and opened:
        raise Refusal(
            f"no kernel module drives both {_named(closed)} and {_named(opened)}",
            hint="these GPUs need hosts of their own: the open modules begin with Turing, "
            "and the proprietary ones end before Grace Hopper and Blackwell",
        )
    if wanted == "auto":
        found = _auto(branch, devices, closed, opened)
    else:
        found = Flavour(wanted, f"{wanted} modules: driver.flavour says so")
    _refuse_wrong_flavour(found.modules, branch, closed, opened)
    return found


def _auto(branch: int, devices: list[int], closed: list[int], opened: list[int]) -> Flavour:
    """Open where they must be or are the branch's default; see :data:`OPEN_IS_DEFAULT`."""
    if closed:
        return Flavour("proprietary", f"proprietary modules: the open ones do not drive {_named(closed)}")
    if opened:
        return Flavour("open", f"open modules: the only ones that drive {_named(opened)}")
    if branch < OPEN_IS_DEFAULT:
        return Flavour(
            "proprietary",
            f"proprietary modules: the default of branch {branch} (open from {OPEN_IS_DEFAULT} on) "
            f"for {_named(devices)}",
        )
    return Flavour("open", f"open modules: {_named(devices)}")


def _refuse_wrong_flavour(modules: Modules, branch: int, closed: list[int], opened: list[int]) -> None:
    if modules == "open":
        if closed:
            raise Refusal(
                f"the open modules do not drive {_named(closed)}", hint="flavour: proprietary or auto"
            )
        if branch < OPEN_EXISTS:
            raise Refusal(f"branch {branch} has no open modules", hint=f"they begin with {OPEN_EXISTS}")
        return
    if opened:
        raise Refusal(f"the proprietary modules do not drive {_named(opened)}", hint="flavour: open or auto")
    if branch >= PROPRIETARY_IS_GONE:
        raise Refusal(
            f"branch {branch} has no proprietary modules",
            hint=f"flavour: open or auto, or a branch before {PROPRIETARY_IS_GONE}",
        )


def _refuse_wrong_branches(branch: int, devices: Iterable[int]) -> None:
    """Every GPU has a first branch, and the older ones have a last one."""
    firsts = {device: first_branch(device) for device in devices}
    lasts = {device: last for device in firsts if (last := last_branch(device)) is not None}
    newest, oldest = max(firsts.values(), default=0), min(lasts.values(), default=ANY)
    if newest > oldest:
        early = [device for device, last in lasts.items() if last < newest]
        late = [device for device, first in firsts.items() if first > oldest]
        raise Refusal(
            f"no branch drives both {_named(early)} (until {oldest}) and {_named(late)} (from {newest} on)",
            hint="these GPUs need hosts of their own",
        )
    if late := [device for device, first in firsts.items() if first > branch]:
        raise Refusal(f"branch {branch} does not drive {_named(late)} yet", hint=f"branch: {newest} or later")
    if early := [device for device, last in lasts.items() if last < branch]:
        raise Refusal(f"branch {branch} does not drive {_named(early)}", hint=f"branch: {oldest}")


def unknown_gpus(gpus: Sequence[Gpu]) -> str:
    """What the plan should say of GPUs that no table knows; empty where all are known."""
    unknown = sorted({gpu.device for gpu in gpus if gpu.architecture is None})
    if not unknown:
        return ""
    return (
        f"no generation is known of {_named(unknown)}: look into the driver's release notes "
        "whether the branch drives it"
    )


def _named(devices: Sequence[int]) -> str:
    """``Hopper (0x2330), Turing (0x1eb8)``: generations with the ids that told them."""
    by_name: dict[str, list[str]] = {}
    for device in devices:
        architecture = architecture_of(device)
        name = architecture.name.title() if architecture else "GPUs of no known generation"
        by_name.setdefault(name, []).append(f"{device:#06x}")
    return ", ".join(f"{name} ({', '.join(ids)})" for name, ids in by_name.items())
