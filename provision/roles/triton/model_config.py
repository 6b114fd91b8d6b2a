"""A model's ``config.pbtxt``, read as Triton reads it. Pure."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any

NEWER = re.compile(r"has no (field|value) named|no extension|not registered|RecursionError")
"""Of what a newer Triton may know, and these protobufs do not."""


@dataclass(frozen=True)
class Unread:
    """A configuration that cannot be read.

    :ivar line: where; 0 where that is not known.
    :ivar sure: whether Triton does not read it either.
    """

    line: int
    why: str
    sure: bool


@functools.cache
def _message() -> Any:
    """tritonclient's class of a configuration, without its package ``grpc``, which would load grpcio."""
    package = importlib.util.find_spec("tritonclient")
    places = list(package.submodule_search_locations or ()) if package else []
    spec = PathFinder.find_spec("model_config_pb2", [f"{place}/grpc" for place in places])
    if spec is None or spec.loader is None:
        raise ImportError("tritonclient has no model_config_pb2")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


def read_config(content: bytes) -> Any | Unread:
    """The ``inference.ModelConfig`` of a text, or why there is none.

    Bytes that are no UTF-8 may stand in comments and strings.
    """
    from google.protobuf import text_format  # noqa: PLC0415  # 30 ms, which few commands need

    found = _message()()
    try:
        text_format.Parse(content.decode("utf-8-sig", "replace"), found)
    except text_format.ParseError as error:
        # "3:7 : 'the whole line': what is wrong"
        why = re.sub(r"^\d+:\d+ : ", "", str(error), count=1)
        why = why.rpartition("': ")[2] if why.startswith("'") else why
        return Unread(error.GetLine() or 0, why.strip().rstrip(".")[:200], sure=not NEWER.search(why))
    except RecursionError:
        return Unread(0, "it is nested too deep", sure=False)
    return found
