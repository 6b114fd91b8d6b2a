"""What is kept of an instance that serves while it is changed, and starts that may go back to that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from provision.probe import words
from provision.resource import Change, Missing, Planned
from provision.resources.file import FILES, File, FileState
from provision.shell import constant

ROLLBACK = "triton/rollback.sh"
STARTED = "triton/starts.sh"

ENVIRONMENT = f"{constant(STARTED, 'environments')}/{{}}.env"
"""Where the environment of an instance lies; ``{}`` stands for its name."""

BESIDE = (ENVIRONMENT, f"{constant(STARTED, 'served_versions')}/triton@{{}}.service")
"""What goes with the unit of an instance."""

PROTECT = "protect"
"""Action of a change of nothing but a file's mode and owner."""


def bring_up(word: str, unit: str, seconds: int, ports: Sequence[int], *, rollback: bool) -> str:
    """Sh text that starts or restarts an instance, by ``start_unit`` or ``restart_unit``.

    :param rollback: whether its previous version is started where it does not get ready.
    """
    how = word.replace("_unit", "_or_go_back") if rollback else word
    return words("serve", how, unit, str(seconds), *map(str, ports))


def keeping(change: Change, unit: str, *, restarts: bool = True) -> Change:
    """The change of a file, before which what the unit serves with is kept; ``unit`` may be empty.

    :param restarts: whether a restart follows; then a start that is under way is waited for.
    """
    word = "await_version" if restarts else "keep_version"
    return replace(change, script=f"{words(word, unit)} && {change.script}") if unit else change


@dataclass(frozen=True)
class EnvironmentFile(File):
    """The environment of an instance.

    :ivar kept: the unit whose version is kept before this changes; empty for none.
    """

    kept: str = ""
    shell = (FILES, ROLLBACK)

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:
        """As of any file. Of another mode or owner no container knows: Docker's client has read the file."""
        change = super().change(state, planned)
        if change and isinstance(state, FileState) and state.content == self.content:
            return keeping(replace(change, action=PROTECT), self.kept, restarts=False)
        return change and keeping(change, self.kept)
