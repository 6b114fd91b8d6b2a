"""Kernel modules that must be loaded, in the version that the host has installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, Change, Missing, Planned, Resource, Signal, names_of
from provision.resources.packages.sets import moves_of
from provision.resources.reboot import RebootPolicy
from provision.roles.driver.reboot import USERS, users


@dataclass(frozen=True)
class ModuleState:
    """Versions of a loaded module; empty where the module states none or modinfo does not find it.

    :ivar loaded: what the kernel runs.
    :ivar installed: what modprobe would load.
    """

    loaded: str
    installed: str = ""


@dataclass(frozen=True)
class Module(Resource[ModuleState | Missing]):
    """A loaded kernel module. Loaded means that ``/sys/module/NAME`` exists.

    :ivar version: the wanted version without packaging suffix, exact or a glob, or None for any.
    :ivar packages: names of the packages whose upgrade or downgrade replaces the module.
    :ivar reboot: what is allowed where the module is in use, so that another version takes a reboot.
    :ivar signals: what it tells the handlers of other roles when it is loaded.
    """

    name: str
    version: str | None = None
    packages: tuple[str, ...] = ()
    reboot: RebootPolicy | None = None
    signals: tuple[Signal, ...] = ()
    kind: ClassVar[str] = "module"
    shell = ("driver/load.sh",)

    @property
    def id(self) -> str:
        return f"module:{self.name}"

    @property
    def folder(self) -> str:
        """Where sysfs shows it; the kernel writes ``_`` where module names have ``-``."""
        return f"/sys/module/{self.name.replace('-', '_')}"

    @classmethod
    def probe(cls, resources: Sequence[Module]) -> Probe:
        """Ask sysfs for all modules, and modinfo for those whose version counts."""
        folders = (f"{'v' if r.version else '-'}{r.folder}" for r in resources)
        return Probe("module", words("module_states", *folders), ("driver/modules.sh",), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Module], answer: Output) -> Mapping[str, ModuleState | Missing]:
        """State by id.

        :raises ValueError: if there is not one line for each module.
        """
        lines = answer.out.splitlines()
        if len(lines) != len(resources):
            raise ValueError(f"{len(lines)} answers for {len(resources)} modules: {answer.err.strip()}")
        return {r.id: _state(line) for r, line in zip(resources, lines, strict=True)}

    def bare(self) -> Missing:
        return ABSENT

    def change(self, state: ModuleState | Missing, planned: Planned) -> Change | None:
        """Load the module, or reload it where another version runs than is installed or wanted."""
        if isinstance(state, Missing):
            return Change(
                resource=self.id,
                action="load",
                summary=f"load kernel module {self.name}",
                reason="it is not loaded",
                sign="+",
                done=f"[ -d {quote(self.folder)} ]",
                script=f"load_module {quote(self.name)}",
                signals=names_of(self.signals),
                after_reboot=True,
            )
        if not self.version:
            return None
        if planned.positions(moves_of(self.packages, ("upgrade", "downgrade"))):
            reason = f"{state.loaded} is loaded, and its packages change"
        elif state.loaded and not fnmatchcase(state.loaded, self.version):
            reason = f"{state.loaded} is loaded, {self.version} is wanted"
        elif state.loaded and state.installed and state.loaded != state.installed:
            reason = f"{state.loaded} is loaded, {state.installed} is installed"
        else:
            return None
        return Change(
            resource=self.id,
            action="reload",
            summary=f"reload kernel module {self.name}",
            reason=reason,
            done=f"module_is {words(self.name, self.version)}",
            script=f"reload_module {quote(self.name)}",
            signals=names_of(self.signals),
            preview=USERS if self.reboot else None,
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Reboot instead of reloading where something uses the module."""
        found = users(answer)
        if self.reboot is None or not found.names:
            return replace(change, summary=f"{change.summary} (nothing uses it, so no reboot is needed)")
        reboot = self.reboot.change(self.id, change.reason, found.impact(), causes=self.reboot.causes)
        reason = f"{change.reason}, and {found.names} use{'' if ',' in found.names else 's'} it"
        return replace(reboot, reason=reason, signals=change.signals)


def _state(line: str) -> ModuleState | Missing:
    if line == "absent":
        return ABSENT
    _, loaded, installed = line.split(" ")
    return ModuleState(loaded.removeprefix("-"), installed.removeprefix("-"))
