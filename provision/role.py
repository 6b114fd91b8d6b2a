"""What a role is: settings, whose defaults are its documentation, and the resources that they declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from provision.facts import Facts
from provision.resource import AnyResource


class Settings(BaseModel):
    """Settings of a role or a part of one: frozen, typed strictly, unknown keys refused.

    The text below each field is its documentation; a refused value is answered with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class ImpossibleError(ValueError):
    """Settings that cannot work; for validators, where a field's documentation is not enough as a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Role:
    """A role: its name is the key of its settings in the inventory.

    :ivar settings: the model of its settings.
    :ivar resources: what a host needs, in the order in which it is made right. It may raise Refusal.
    :ivar order: place among the roles of a run; lower comes first.
    :ivar shared: settings that are the host's variables of the same name where its own do not give them.
    :ivar needs: names of the roles without which it does not work where they are on its host.
    :ivar removal: what takes from a host what the record of files and holds does not tell; after the files
        come its handlers, which may listen to them.
    :ivar example: settings as an inventory gives them, with which the role is tested.
    """

    name: str
    settings: type[Settings]
    resources: Callable[[Any, Facts], Sequence[AnyResource]]
    order: int = 50
    shared: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    removal: Callable[[], Sequence[AnyResource]] = tuple
    example: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
