"""What a role is: settings, whose defaults are its documentation, and the resources that they declare."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from provision.facts import Facts
from provision.resource import AnyResource


class Settings(BaseModel):
    """Settings of a role or a part of one: frozen, typed strictly, unknown keys refused.

    The text below each field is its documentation; a refused value is answered with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    @functools.cache
    def meanings(cls) -> Mapping[str, str]:
        """The documentation of each field that has one, by the field's name.

        It is read from the source when it is asked for. pydantic's ``use_attribute_docstrings`` reads it at
        import, which costs every command 50 ms.
        """
        found: dict[str, str] = {}
        for model in reversed(cls.__mro__):
            if not issubclass(model, Settings):
                continue
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
            assert isinstance(definition, ast.ClassDef)
            for line, text in itertools.pairwise(definition.body):
                match line, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(said))
                    ):
                        found[name] = inspect.cleandoc(said)
        return found

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of the settings, with the meaning of each."""
        document = handler(schema)
        fields = handler.resolve_ref_schema(document)["properties"]
        for name, said in cls.meanings().items():
            fields[name]["description"] = said
        return document


class ImpossibleError(ValueError):
    """Settings that cannot work; for validators, where a field's documentation is not enough as a hint.

    :ivar at: way from what the validator validates to the value that is wrong: ``("args", 3)``.
    """

    def __init__(self, message: str, hint: str, at: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.at = at


@dataclass(frozen=True)
class Role:
    """A role: its name is the key of its settings in the inventory.

    :ivar settings: the model of its settings.
    :ivar resources: what a host needs, in the order in which it is made right. It may raise Refusal.
    :ivar order: place among the roles of a run; lower comes first.
    :ivar shared: settings that are the host's variables of the same name where its own do not give them.
    :ivar needs: names of the roles without which it does not work where they are on its host.
    :ivar driver: the version of NVIDIA's driver that its settings ask for, where it installs one; the facts
        tell later roles.
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
    driver: Callable[[Any], str] | None = None
    removal: Callable[[], Sequence[AnyResource]] = tuple
    example: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
