"""One inference through Triton's HTTP API, asked from the host itself."""

from __future__ import annotations

import json
from typing import Any

from provision.connection import Connection
from provision.errors import HostError
from provision.roles.triton import http
from provision.roles.triton.role import CANARY_MODEL, Instance, unit_of

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


def inference(connection: Connection, name: str, instance: Instance, text: str = TEXT) -> dict[str, str]:
    """Ask the canary of an instance one question; return request, answer and the GPUs that its process sees.

    :raises HostError: if the host cannot be reached, or the instance does not answer.
    """
    host = connection.login.host
    if not instance.canary:
        raise HostError(host, f"triton instance {name} serves no canary", hint="canary: true")
    body = canary_request(text)
    output = connection.run(
        http.request(instance.address, instance.http_port, PATH, body),
        timeout=http.TIMEOUT + 5,
        what="an inference",
    )
    answer = http.parse(output)
    if answer.status != 200:
        raise HostError(
            host,
            f"triton instance {name} does not infer: {answer.text or f'status {answer.status}'}",
            hint=f"journalctl -u {unit_of(name)} -n 50",
        )
    try:
        found = outputs(answer)
    except ValueError as error:
        raise HostError(host, str(error)) from error
    address = http.reachable(instance.address)
    return {
        "host": host,
        "request": f"POST http://{address}:{instance.http_port}{PATH} {json.dumps(body)}",
        "answer": answer.text,
        "GPUs that served it": ", ".join(found.get("GPUS", [])) or "none",
    }
