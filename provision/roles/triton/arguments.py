"""Arguments of tritonserver that settings give, and those that its unit sets. Pure.

tritonserver reads them with getopt_long(3): a name may be shortened as long as it is unique, the value stands
behind ``=`` or is the next word, and of two equal options the last counts (2.48.0, tried).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

PORTS_INSIDE = {"http_port": 8000, "grpc_port": 8001, "metrics_port": 8002}
"""Ports in the container, which are Triton's own defaults, by the setting of the host's."""

METRICS = "allow-metrics"
HTTP_RESTRICTED = "http-restricted-api"
MODEL_CONTROL, LOAD = "model-control-mode", "load-model"
"""Options that the settings ``model_control`` and ``load`` give, or ``args``, but not both."""

_ADDRESS = ("Docker publishes the ports of all addresses of the container", "use address")
_REPOSITORY = ("the unit gives the server its model repository", "use models")

_OWN = {
    **{
        setting.replace("_", "-"): (f"the unit publishes port {port} of the container", f"use {setting}")
        for setting, port in PORTS_INSIDE.items()
    },
    "http-address": _ADDRESS,
    "grpc-address": _ADDRESS,
    "metrics-address": _ADDRESS,
    "model-repository": _REPOSITORY,
    "model-store": _REPOSITORY,
    "exit-timeout-secs": ("the unit waits for its end as long as exit_timeout says", "use exit_timeout"),
    "id": ("the server has the name of its instance", "take it out; the key below instances names it"),
    "log-format": ("the unit sets ISO8601, which tools read", "take it out"),
}
"""Options that the unit sets itself: why, and what to do."""

SHORT = "-"
"""Stands for the name of an option of one letter."""

_NO_SUCH = "tritonserver has no such option, and ends with its usage"
_ENDS = {"help": "the server prints its usage, and ends", "version": _NO_SUCH, SHORT: _NO_SUCH}
"""Options with which no server serves: why."""

_FLAGS = ("disable-auto-complete-config",)
"""Options that take no value."""

_READ = (
    *_OWN,
    *("help", "version"),
    *("allow-http", "exit-on-error", "strict-readiness", HTTP_RESTRICTED, "grpc-restricted-protocol"),
    *(METRICS, MODEL_CONTROL, LOAD, "backend-config", "model-config-name"),
)
"""Options whose meaning counts here, whatever their value."""

_FIRST_RELEASE = {
    HTTP_RESTRICTED: "23.11",
    "model-load-retry-count": "24.01",
    "model-config-name": "24.05",
    "grpc-max-response-pool-size": "25.03",
    "grpc-infer-thread-count": "25.04",
    "http-max-input-size": "25.06",
    "allow-client-shm": "26.04",
}
"""Release of the image that first has an option, by the tags of triton-inference-server/server. tritonserver
ends with its usage at an option that it does not know."""

TRUE = ("true", "1", "on")


class Option(NamedTuple):
    """An option among arguments: where it stands, how its name is written, its full name, and its value."""

    at: int
    written: str
    name: str
    value: str


class Contradiction(NamedTuple):
    """An option that an instance cannot have: which, why, and what to do."""

    option: Option
    why: str
    hint: str


def options(args: Sequence[str]) -> list[Option]:
    """The options among arguments, names with ``_`` or of one letter too, at which tritonserver ends."""
    found = []
    for at, (arg, following) in enumerate(pairwise([*args, ""])):
        if option := re.fullmatch(r"(--[^=\s]+)(?:[=\s]+(.*))?", arg, re.DOTALL):
            name = option[1].removeprefix("--").replace("_", "-")
            full = next((known for known in _READ if known.startswith(name)), name)
            value = following if option[2] is None else option[2]
            found.append(Option(at, option[1], full, value))
        elif re.match("-[A-Za-z?]", arg) and not (found and _is_value(args, at, found[-1])):
            found.append(Option(at, arg[:2], SHORT, ""))
    return found


def _is_value(args: Sequence[str], at: int, before: Option) -> bool:
    """Whether the word at this place is the value of the option before it."""
    return before.at == at - 1 and args[before.at] == before.written and before.name not in (*_FLAGS, *_ENDS)


def last(given: Sequence[Option], name: str, default: str) -> str:
    """The value that counts of an option, in small letters."""
    return next((option.value.lower() for option in reversed(given) if option.name == name), default)


def contradictions(given: Sequence[Option], release: str | None) -> Iterator[Contradiction]:
    """Options that take the server away from its unit, or that its release does not know."""
    strict = last(given, "strict-readiness", "true") in TRUE
    for option in given:
        first = _FIRST_RELEASE.get(option.name, "")
        restricting = option.name.endswith(("-restricted-api", "-restricted-protocol"))
        if option.name in _OWN:
            yield Contradiction(option, *_OWN[option.name])
        elif option.name in _ENDS:
            yield Contradiction(option, _ENDS[option.name], "take it out")
        elif option.name == "allow-http" and option.value.lower() not in TRUE:
            yield Contradiction(option, "the unit asks over HTTP whether the server is ready", "take it out")
        elif option.name == "exit-on-error" and option.value.lower() not in TRUE and strict:
            why = "a model that fails would leave the server up and never ready"
            yield Contradiction(option, why, "add --strict-readiness=false, or take it out")
        elif restricting and _covers(option.value, "health"):
            yield Contradiction(
                option, "who asks whether the server is ready has no such header", "take health out of it"
            )
        elif release is not None and release < first:
            why = f"release {first} is the first that has it, and the image is {release}"
            yield Contradiction(option, why, "take it out, or take a later image")


def restricts(given: Sequence[Option], api: str) -> bool:
    """Whether who uses this part of the HTTP API has to have a header."""
    return any(option.name == HTTP_RESTRICTED and _covers(option.value, api) for option in given)


def _covers(value: str, api: str) -> bool:
    """Whether ``API,API:KEY=VALUE`` restricts an API."""
    return api in (name.strip().lower() for name in value.partition(":")[0].split(","))
