"""The types that a model of settings allows at a path: what messages name, and hints look up."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def annotation_at(annotation: Any, path: Sequence[str | int]) -> tuple[Any, ...]:
    """Return the types that a model allows at ``path``, members of unions apart."""
    types_ = _members(annotation)
    for step in path:
        below = [inner for type_ in types_ for inner in _inner(type_, step)]
        types_ = tuple(member for inner in below for member in _members(inner))
    return types_


def _inner(type_: Any, step: str | int) -> tuple[Any, ...]:
    """Return the types of what stands at ``step`` inside of a value of ``type_``."""
    if is_a(type_, BaseModel):
        return tuple(
            field.annotation for name, field in type_.model_fields.items() if str(step) in {name, field.alias}
        )
    arguments = get_args(type_)
    origin = get_origin(type_)
    if not isinstance(origin, type) or not arguments:
        return ()
    if issubclass(origin, Mapping):
        return arguments[1:]
    return tuple(argument for argument in arguments if argument is not Ellipsis)


def _members(annotation: Any) -> tuple[Any, ...]:
    """Take a union apart, and drop what Annotated adds."""
    if hasattr(annotation, "__value__"):  # a name given by "type X = …"
        return _members(annotation.__value__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return tuple(member for argument in get_args(annotation) for member in _members(argument))
    return (annotation,)


def is_a(type_: Any, wanted: type) -> bool:
    """Whether ``type_`` is a class, and a kind of ``wanted``."""
    return isinstance(type_, type) and issubclass(type_, wanted)
