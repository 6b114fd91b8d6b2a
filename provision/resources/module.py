"""Kernel modules that must be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.command import Output, Probe, quote, words
from provision.errors import Refusal
from provision.resources.base import ABSENT, Change, Missing, Planned, Resource


@dataclass(frozen=True)
class Module(Resource):
    """A loaded kernel module, and the version it must have where it states one.

    Loaded means that ``/sys/module/NAME`` exists; a module built without a version has none to compare.
    :ivar version: the wanted version without packaging suffix, or None for any.
    """

    name: str
    version: str | None = None
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
        """Ask sysfs for all modules."""
        return Probe(
            "module",
            f"""for d in {words(*(r.folder for r in resources))}; do
  if [ -d "$d" ]; then v=; [ -r "$d/version" ] && read -r v <"$d/version"; printf 'loaded %s\\n' "$v"
  else echo absent; fi
done""",
        )

    @classmethod
    def states(cls, resources: Sequence[Module], answer: Output) -> Mapping[str, str | Missing]:
        """Version of each loaded module ("" if it states none), by id."""
        lines = answer.out.splitlines()
        if len(lines) != len(resources):
            raise ValueError(f"{len(lines)} answers for {len(resources)} modules: {answer.err.strip()}")
        return {
            r.id: ABSENT if line == "absent" else line.removeprefix("loaded").strip()
            for r, line in zip(resources, lines, strict=True)
        }

    def change(self, state: str | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Load the module if it is not loaded.

        :raises Refusal: if another version is loaded, which only a reboot or a reload of the module cures.
        """
        if isinstance(state, Missing):
            return Change(
                resource=self.id,
                action="load",
                summary=f"load kernel module {self.name}",
                reason="it is not loaded",
                done=f"[ -d {quote(self.folder)} ]",
                script=f"load_module {quote(self.name)}",
            )
        if self.version and state and state != self.version:
            raise Refusal(
                f"reboot needed: kernel module {self.name} {state} is loaded, {self.version} is wanted",
                hint="drain the host and reboot it, then run again",
            )
        return None
