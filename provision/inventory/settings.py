"""A role's settings: one key of a host's variables → a validated model, or errors with file and line.

Values count as JSON: a list fits a tuple, a string fits a path or an enum, and nothing else is converted.
Templates and vault values are refused, because nothing here evaluates or decrypts them.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from provision.errors import Location, SettingsError, visible
from provision.inventory.annotations import annotation_at, is_a
from provision.inventory.model import Host
from provision.inventory.values import Item, Value, Vault, is_template, plain
from provision.secrecy import is_secret

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]
Where = Callable[[Path], Location]
"""Tells where the value at a path stands, or the closest of its ancestors that stands anywhere."""

_SHOWN = 20  # problems; beyond that a count is of more use
_KINDS = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "empty",
    "path_type": "a path",
    "date_type": "a date",
    "datetime_type": "a date with a time",
}
_CHOICES = {"literal_error", "enum"}
_LENGTHS = {"too_short": "at least {min_length}", "too_long": "at most {max_length}"}
_NUMBERS = {"int_type", "float_type", "bool_type"}
"""Of what is written without quotes in YAML."""

UNQUOTE = "write it without quotes"

QUOTE = "quote it: without quotes yes, no, on and off are booleans in YAML"
_LIMITS = {  # filled from pydantic's context of the error
    "greater_than": "is not more than {gt}",
    "greater_than_equal": "is not at least {ge}",
    "less_than": "is not less than {lt}",
    "less_than_equal": "is not at most {le}",
    "multiple_of": "is not a multiple of {multiple_of}",
    "string_too_short": "is not at least {min_length} characters long",
    "string_too_long": "is not at most {max_length} characters long",
    "string_pattern_mismatch": "does not match {pattern}",
}


@dataclass(frozen=True)
class _Problem:
    """One thing that is wrong: where, in one sentence, and what to do where that is known."""

    where: Location
    message: str
    hint: str | None = None


def read(model: type[M], host: Host, key: str, shared: Sequence[str] = ()) -> M:
    """Return the settings of a role: what stands below ``key``, or the defaults.

    :param shared: settings that are variables of the host where they do not stand below ``key``.
    :raises SettingsError: an unknown setting, a wrong type, a missing or impossible value; all of them in one
        message, a line each, with the file and line of each.
    """
    value = host.settings(key)
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise _no_mapping(value, key, host.where(key))
    from_host = [name for name in shared if name not in value and name in host.vars]
    value = {**value, **{name: host.settings(name) for name in from_host}}

    def where(path: Path) -> Location:
        """Where the value at ``path`` stands, or the closest of its ancestors that stands anywhere."""
        way = path[1:] if path[1:2] and path[1] in from_host else path
        ancestors = (host.where(*way[:length]) for length in range(len(way), -1, -1))
        return next(filter(None, ancestors))

    def named(problems: Iterable[_Problem]) -> list[_Problem]:
        """The problems, those of the host's variables under their own names."""
        found = list(problems)
        for name in from_host:
            inside = f"{key}.{name}"
            found = [
                replace(
                    one,
                    message=one.message.replace(inside, name),
                    hint=one.hint and one.hint.replace(inside, name),
                )
                for one in found
            ]
        return found

    layers = [layer[name] for layer in host.layers for name in (key, *from_host) if name in layer]
    if problems := [problem for item in layers for problem in _misread(item)]:
        raise _error(problems)
    if problems := named(_unusable(where, value, (key,))):
        raise _error(problems)
    try:
        return model.model_validate_json(json.dumps(plain(value)))
    except ValidationError as error:
        raise _error(named(_problems(model, where, {key: value}, error))) from None


def refuse_misspelt(host: Host, models: Mapping[str, type[BaseModel]]) -> None:
    """Refuse a variable that is a role's settings under a name that is almost the role's.

    :param models: the settings of all roles, by name.
    :raises SettingsError: naming the role that was meant.
    """
    for name in host.vars:
        value = host.settings(name)
        for meant in () if name in models else difflib.get_close_matches(name, models, 1, 0.8):
            if isinstance(value, Mapping) and value.keys() <= models[meant].model_fields.keys():
                raise SettingsError(
                    f"no role is called {name}: did you mean {meant}?",
                    where=host.where(name),
                    hint=f"{meant}: … holds these settings; no role reads {name}",
                )


def _no_mapping(value: Value, key: str, where: Location | None) -> SettingsError:
    message, hint = f"{key} is {_shown(value)}, not a mapping", "write NAME: VALUE below it"
    if isinstance(value, Vault):
        message = f"{key} is encrypted with ansible-vault"
        hint = "ansible-vault values are not decrypted: write the settings below it, secrets into files"
    elif is_template(value):
        message = f"{key} is a template: {_shown(value)}"
        hint = "templates are not evaluated: write the settings themselves below it"
    return SettingsError(message, where=where, hint=hint)


def _error(problems: Sequence[_Problem]) -> SettingsError:
    """Join problems, one a line; a hint stands behind its problem where there are several."""
    ordered = sorted(
        (replace(problem, message=_cut(problem.message, 400)) for problem in problems),
        key=lambda problem: (problem.where, problem.message),
    )
    first = ordered[0]
    if len(ordered) == 1:
        return SettingsError(first.message, where=first.where, hint=first.hint)
    lines = [
        f"{problem.message} ({problem.hint})" if problem.hint else problem.message for problem in ordered
    ]
    lines[1:] = [f"{problem.where}: {line}" for problem, line in zip(ordered[1:], lines[1:], strict=True)]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more problems"]
    return SettingsError("\n".join(lines), where=first.where)


def _misread(item: Item) -> Iterator[_Problem]:
    """Yield the names that YAML reads as another word: ``yes`` is true, and ``010`` is 8."""
    for name, inner in item.items():
        tag = inner.key.tag.rpartition(":")[2] if inner.key else "str"
        if tag not in ("str", "value") and (written := str(inner.key and inner.key.value)) != name:
            yield _Problem(
                inner.where, f"YAML reads the name {written} as {name}", f'quote it: "{written}", or "{name}"'
            )
        yield from _misread(inner)
    for inner in item.elements():
        yield from _misread(inner)


def _unusable(where: Where, value: Value, path: Path) -> Iterator[_Problem]:
    """Yield the values that only Ansible could make something of."""
    name = _name(path)
    if isinstance(value, Vault):
        hint = (
            "ansible-vault values are not decrypted; put a secret into a file on the host and name the file"
        )
        yield _Problem(where(path), f"{name} is encrypted with ansible-vault", hint)
    elif is_template(value):
        hint = "templates are not evaluated: write the value itself, or !unsafe before it to keep the braces"
        shown = "" if is_secret(path, value) else f": {_shown(value)}"
        yield _Problem(where(path), f"{name} is a template{shown}", hint)
    elif isinstance(value, float) and not math.isfinite(value):
        yield _Problem(where(path), f"{name} is {value}, which is not a usable number")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unusable(where, item, (*path, key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from _unusable(where, item, (*path, number))


def _problems(
    model: type[BaseModel], where: Where, vars_: Mapping[str, Value], error: ValidationError
) -> list[_Problem]:
    """Translate pydantic's errors; those of the members of a union about one value become one sentence."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_real_path(vars_, detail), []).append(detail)
    return [
        _problem(model, where(path), path, details)
        for path, details in by_path.items()
        if not _says_less(path, details, by_path)
    ]


def _says_less(path: Path, details: list[ErrorDetails], others: Iterable[Path]) -> bool:
    """Whether a union's member only has another type, or a list only lacks items that are wrong, while
    another problem says what is wrong inside.
    """
    shallow = all(_is_other_type(detail) or detail["type"] == "too_short" for detail in details)
    return shallow and any(len(other) > len(path) and other[: len(path)] == path for other in others)


def _is_other_type(detail: ErrorDetails) -> bool:
    return detail["type"] in _KINDS or detail["type"] in _CHOICES


def _problem(model: type[BaseModel], where: Location, path: Path, details: list[ErrorDetails]) -> _Problem:
    if isinstance(details[0]["input"], list | dict):  # the member of a union that may be one says more
        details = [detail for detail in details if not _is_other_type(detail)] or details
    elif details[0]["type"] in _NUMBERS:  # a number in quotes, or else the text of a union is wrong
        quoted = [detail for detail in details if _type_hint(detail) == UNQUOTE]
        details = quoted or [detail for detail in details if not _is_other_type(detail)] or details
    detail = details[0]
    name = _name(path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        message = f"unknown setting {str(path[-1])!r} in {_name(path[:-1])}"
        models = [type_ for type_ in annotation_at(model, path[1:-1]) if is_a(type_, BaseModel)]
        known = [field.alias or name for type_ in models for name, field in type_.model_fields.items()]
        return _Problem(where, *_with_suggestion(message, str(path[-1]), known))
    if kind == "missing":
        return _Problem(where, f"{name} is missing", f"add {path[-1]}: below {_name(path[:-1])}")
    secret = any(is_a(type_, SecretStr) for type_ in annotation_at(model, path[1:]))
    shown = "the value" if secret or is_secret(path, detail["input"]) else _shown(detail["input"])
    if all(item["type"] in _KINDS for item in details):
        wanted = " or ".join(dict.fromkeys(_KINDS[item["type"]] for item in details))
        hint = _type_hint(detail) or _documented(model, path)
        return _Problem(where, f"{name}: {shown} is not {wanted}", hint)
    if kind in _CHOICES:
        problem = _choice(where, name, shown, detail)
        if isinstance(detail["input"], str) and (len(details) == 1 or not problem.hint):
            return problem
        hint = QUOTE if isinstance(detail["input"], bool) else _documented(model, path)
        return _Problem(where, f"{name}: {_sentence(detail, shown)}", hint)
    given = getattr(detail.get("ctx", {}).get("error"), "hint", None)
    return _Problem(where, f"{name}: {_sentence(detail, shown)}", given or _documented(model, path))


def _documented(model: type[BaseModel], path: Path) -> str | None:
    """What the model says of the setting at ``path``; an item of a list is described by its list."""
    while len(path) > 1:
        for type_ in annotation_at(model, path[1:-1]):
            fields = type_.model_json_schema()["properties"] if is_a(type_, BaseModel) else {}
            if said := fields.get(str(path[-1]), {}).get("description"):
                text = " ".join(said.split()).replace("``", "")
                return f"{path[-1]}: {text}"
        path = path[:-1]
    return None


def _choice(where: Location, name: str, shown: str, detail: ErrorDetails) -> _Problem:
    """A value that is not among those allowed."""
    expected = str(detail.get("ctx", {}).get("expected", ""))
    message = f"{name}: {_sentence(detail, shown)}"
    allowed = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    return _Problem(where, *_with_suggestion(message, str(detail["input"]), allowed))


def _sentence(detail: ErrorDetails, shown: str) -> str:
    """Say what is wrong with a value that has the right type."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in {"value_error", "assertion_error"}:
        return str(context.get("error") or detail["msg"])
    if kind in _CHOICES:
        return f"{shown} is not one of {context.get('expected', '')}"
    if kind in _LENGTHS:
        return _length(detail["input"], _LENGTHS[kind].format(**context))
    if kind == "string_too_short" and detail["input"] == "":
        return "the value is empty"
    if kind in _LIMITS:
        return f"{shown} {_LIMITS[kind].format(**context)}"
    text = detail["msg"]
    return f"{shown}: {text[:1].lower()}{text[1:]}"


def _length(value: Any, wanted: str) -> str:
    """Say how many items a list or a mapping has, which is not what is wanted."""
    noun = "mapping" if isinstance(value, dict) else "list"
    if not value:
        return f"the {noun} is empty"
    return f"the {noun} has {len(value)} item{'' if len(value) == 1 else 's'}, not {wanted}"


def _type_hint(detail: ErrorDetails) -> str | None:
    """The usual cause of a value of the wrong type in YAML."""
    value = detail["input"]
    if detail["type"] == "string_type":
        if isinstance(value, bool):
            return QUOTE
        if isinstance(value, int | float):
            return "quote it: without quotes YAML reads a number, and 24.10 becomes 24.1"
        return None
    if detail["type"] in {"list_type", "tuple_type", "set_type", "frozen_set_type"}:
        return "write each item on a line of its own behind a dash" if not isinstance(value, list) else None
    return _number_hint(value) if isinstance(value, str) and detail["type"] in _NUMBERS else None


def _number_hint(text: str) -> str | None:
    if power := re.fullmatch(r"([-+]?\d+(?:\.\d*)?)[eE]([-+]?)(\d+)", text):
        digits, sign, exponent = power.groups()
        number = f"{digits if '.' in digits else digits + '.0'}e{sign or '+'}{exponent}"
        return f"YAML reads it as text, and this as a number: {number}"
    return UNQUOTE if _reads_as_other(text) else None


def _reads_as_other(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-").isdigit() or text.lower() in {"true", "false", "yes", "no"}


def _with_suggestion(message: str, word: str, known: Sequence[str]) -> tuple[str, str | None]:
    """Return the message with the closest known word or, where none is close, a hint that names them all."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"{message}; did you mean {close[0]!r}?", None
    return message, f"known: {', '.join(sorted(known))}" if known else None


def _real_path(vars_: Mapping[str, Value], detail: ErrorDetails) -> Path:
    """Return the way to the value in the variables: pydantic's, without its labels of union members, and on
    to what a validator names.
    """
    ((key, value),) = vars_.items()
    path: list[str | int] = [key]
    steps = (*detail["loc"], *getattr(detail.get("ctx", {}).get("error"), "at", ()))
    for number, step in enumerate(steps):
        if isinstance(value, Mapping) and str(step) in value:
            value = value[str(step)]
            path.append(str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
            path.append(step)
        elif detail["type"] == "missing" and number == len(steps) - 1:
            path.append(str(step))
    return tuple(path)


def _name(path: Path) -> str:
    """``triton.instances.main.args[0]``"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return visible(text)


def _shown(value: object) -> str:
    """A value as the user wrote it, if it is short; else what it is."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return _cut(text, 80)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} …"
