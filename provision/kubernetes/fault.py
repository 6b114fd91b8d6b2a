"""What there is to say about a manifest, with its place. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from provision.errors import Location, visible
from provision.inventory.values import Item

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, order=True)
class Fault:
    """Something about a manifest that its author should know.

    :ivar where: with line 0 where nobody knows it: in JSON that is not YAML too.
    :ivar severity: ``error``: a container gets no GPU, or the API refuses the object. ``warning``: it may.
    :ivar message: one sentence without a full stop.
    """

    where: Location
    severity: str
    message: str
    hint: str

    @property
    def text(self) -> str:
        """As compilers print it, with the hint below; no name in a manifest makes a line of its own."""
        place = f"{self.where}:{self.where.column}" if self.where.line else self.where  # JSON that is no YAML
        said = visible(f"{place}: {self.severity}: {self.message}")
        return f"{said}\n  hint: {visible(self.hint)}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "file": self.where.path,
            "line": self.where.line,
            "column": self.where.column,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
        }


def error(item: Item, message: str, hint: str) -> Fault:
    """An error about what stands there."""
    return Fault(item.where, ERROR, message, hint)


def warning(item: Item, message: str, hint: str) -> Fault:
    """A warning about what stands there."""
    return Fault(item.where, WARNING, message, hint)
