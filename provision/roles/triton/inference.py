"""One inference of the canary through Triton's HTTP API. Pure."""

from __future__ import annotations

from typing import Any

from provision.roles.triton import http
from provision.roles.triton.role import CANARY_MODEL

TEXT = "is anybody there?"
PATH = f"/v2/models/{CANARY_MODEL}/infer"


def canary_request(text: str = TEXT) -> dict[str, Any]:
    """The body of an inference request to the canary, in the KServe v2 protocol."""
    return {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [text]}]}


def outputs(answer: http.Answer) -> dict[str, list[Any]]:
    """The outputs of an inference answer by name.

    :raises ValueError: if it is not an answer of that kind.
    """
    try:
        return {output["name"]: list(output["data"]) for output in answer.json()["outputs"]}
    except (LookupError, TypeError) as error:
        raise ValueError(f"not an inference answer: {answer.text[:200]}") from error
