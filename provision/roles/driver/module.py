"""Kernel modules that must be loaded, in the version that the host has installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, Change, Missing, Planned, Resource
from provision.roles.driver.kernel import INSTALLED_MODULE
from provision.roles.driver.reboot import USERS, RebootPolicy, users


@dataclass(frozen=True)
class ModuleState:
    """Versions of a loaded module; empty where the module states none or modinfo does not find it.

    :ivar loaded: what the kernel runs.
    :ivar installed: what modprobe would load.
    """

    loaded: str
    installed: str = ""


@dataclass(frozen=True)
class Module(Resource):
    """A loaded kernel module. Loaded means that ``/sys/module/NAME`` exists.

    :ivar version: the wanted version without packaging suffix, exact or a glob, or None for any.
    :ivar packages: names of the packages whose upgrade or downgrade replaces the module.
    :ivar reboot: what is allowed where the module is in use, so that another version takes a reboot.
    """

    name: str
    version: str | None = None
    packages: tuple[str, ...] = ()
    reboot: RebootPolicy | None = None
    kind: ClassVar[str] = "module"

    @property
    def id(self) -> str:
        """``module:NAME``."""
        return f"module:{self.name}"

    @property
    def folder(self) -> str:
        """Where sysfs shows it; the kernel writes ``_`` where module names have ``-``."""
        return f"/sys/module/{self.name.replace('-', '_')}"

    @classmethod
    def probe(cls, resources: Sequence[Module]) -> Probe:
        """Ask sysfs for all modules, and modinfo for those whose version counts."""
        listed = words(*(f"{'v' if r.version else '-'}{r.folder}" for r in resources))
        return Probe(
            "module",
            f"""{INSTALLED_MODULE}for d in {listed}; do
  ask=${{d%%/*}} d=/${{d#*/}}
  if [ -d "$d" ]; then
    v=; [ -r "$d/version" ] && read -r v <"$d/version"
    i=
    case $ask${{d##*/}} in
      vnvidia) i=$(installed_module version) ;;
      v*) i=$(timeout 10 modinfo -F version "${{d##*/}}" 2>/dev/null) ;;
    esac
    printf 'loaded %s %s\\n' "${{v:--}}" "${{i:--}}"
  else echo absent; fi
done""",
        )

    @classmethod
    def states(cls, resources: Sequence[Module], answer: Output) -> Mapping[str, ModuleState | Missing]:
        """State by id.

        :raises ValueError: if there is not one line for each module.
        """
        lines = answer.out.splitlines()
        if len(lines) != len(resources):
            raise ValueError(f"{len(lines)} answers for {len(resources)} modules: {answer.err.strip()}")
        return {r.id: _state(line) for r, line in zip(resources, lines, strict=True)}

    def change(self, state: ModuleState | Missing, planned: Planned) -> Change | None:
        """Load the module, or reload it where another version runs than is installed or wanted."""
        if isinstance(state, Missing):
            return Change(
                resource=self.id,
                action="load",
                summary=f"load kernel module {self.name}",
                reason="it is not loaded",
                done=f"[ -d {quote(self.folder)} ]",
                script=f"load_module {quote(self.name)}",
            )
        if not self.version:
            return None
        moves = [f"package:{name}:{verb}" for name in self.packages for verb in ("upgrade", "downgrade")]
        if planned.positions(moves):
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
            done=f"{INSTALLED_MODULE}module_is {words(self.name, self.version)}",
            script=f"reload_module {quote(self.name)}",
            look=USERS if self.reboot else "",
        )

    def looked(self, change: Change, answer: Output) -> Change:
        """Reboot instead of reloading where something uses the module."""
        found = users(answer)
        if self.reboot is None or not found.names:
            return replace(change, summary=f"{change.summary} (nothing uses it, so no reboot is needed)")
        reason = f"{change.reason}, and {found.names} use{'' if ',' in found.names else 's'} it"
        return self.reboot.change(self.id, reason, found, causes=self.reboot.causes)


def _state(line: str) -> ModuleState | Missing:
    if line == "absent":
        return ABSENT
    _, loaded, installed = line.split(" ")
    return ModuleState(loaded.removeprefix("-"), installed.removeprefix("-"))
