"""Triton's HTTP API, asked by its own host: bash speaks TCP, so the host needs no curl."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from provision.probe import Output, Probe, words
from provision.roles.triton.launch import CANARY_MODEL
from provision.shell import constant

SHELL = "triton/http.sh"

TIMEOUT = int(constant(SHELL, "http_patience"))
"""Seconds that an answer may take."""

CANARY_PATH = f"/v2/models/{CANARY_MODEL}/infer"
CANARY_TEXT = "is anybody there?"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    :ivar status: 0 if there was none; then ``body`` says why.
    """

    status: int
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "backslashreplace").strip()

    def json(self) -> Any:
        """The body as JSON.

        :raises ValueError: if it is not.
        """
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


def reachable(address: str) -> str:
    """The address at which a host reaches its own ports published on ``address``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  # compared, not bound


def request(address: str, port: int, path: str, body: Any = None) -> tuple[str, str, str]:
    """Address, port and text of a request: GET, or POST with ``body`` as JSON."""
    address = reachable(address)
    data = "" if body is None else json.dumps(body)
    lines = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: {f'[{address}]' if ':' in address else address}:{port}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    text = "\r\n".join([*lines, "", data])
    return address, str(port), text


def probe(name: str, address: str, port: int, path: str, body: Any = None) -> Probe:
    """The probe that sends a request and prints the raw answer; see :func:`request`."""
    return Probe(name, words("http_request", *request(address, port, path, body)), (SHELL,))


def parse(output: Output, seconds: int = TIMEOUT, most: int | None = None) -> Answer:
    """Read the answer to a :func:`probe`, for which there were so many seconds.

    :param most: bytes that it may have.
    """
    printed = SimpleNamespace(makefile=lambda _: io.BytesIO(output.stdout))
    response = http.client.HTTPResponse(printed)  # type: ignore[arg-type]  # it wants makefile() only
    try:
        response.begin()
        body = response.read()
        return _too_large(most) if most and len(body) > most else Answer(response.status, body)
    except http.client.IncompleteRead as error:
        if most and len(error.partial) > most:
            return _too_large(most)
        return Answer(0, f"the answer was cut off after {len(error.partial)} bytes".encode())
    except (http.client.HTTPException, ValueError):
        return Answer(0, _why_nothing(output, seconds).encode())


def _too_large(most: int) -> Answer:
    return Answer(0, f"the answer is larger than {most >> 20} MiB".encode())


def _why_nothing(output: Output, seconds: int) -> str:
    if output.exit_code == 124:
        return f"no answer within {seconds} s"
    if "Connection refused" in output.err:
        return "connection refused: nothing listens there"
    if output.stdout:
        return "what listens there does not speak HTTP"
    return output.err.strip().rpartition("\n")[2] or "the connection was closed without an answer"


def canary_request(text: str = CANARY_TEXT) -> dict[str, Any]:
    """The body of an inference request to the canary, in the KServe v2 protocol."""
    return {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [text]}]}


def outputs(answer: Answer) -> dict[str, list[Any]]:
    """The outputs of an inference answer by name.

    :raises ValueError: if it is not an answer of that kind.
    """
    try:
        return {output["name"]: list(output["data"]) for output in answer.json()["outputs"]}
    except (LookupError, TypeError) as error:
        raise ValueError(f"not an inference answer: {answer.text[:200]}") from error


def models(answer: Answer) -> list[dict[str, str]]:
    """The rows of Triton's list of its models.

    :raises ValueError: if it is not one.
    """
    rows = answer.json() if answer.status == 200 else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        said = answer.text[:200] or f"status {answer.status}"
        raise ValueError(f"Triton does not list its models: {said}")
    return [{str(key): str(value) for key, value in row.items()} for row in rows]


def not_ready(rows: Sequence[Mapping[str, str]], wanted: Sequence[str]) -> list[str]:
    """What is wrong with the models that must be ready; the gate of the unit judges alike.

    A version that was replaced by another one is of no account.

    :param wanted: as :func:`provision.roles.triton.launch.expected_models` has them.
    """
    states: dict[str, list[str]] = {}
    for row in rows:
        name, state, reason = row.get("name", ""), row.get("state", ""), row.get("reason", "")
        if reason != "unloaded" or state != "UNAVAILABLE":
            said = "READY" if state == "READY" else reason or state or "not loaded"
            for key in (name, f"{name}/{row.get('version', '')}"):
                states.setdefault(key, []).append(said)
    everything = list(wanted) == ["*"]
    names = list(dict.fromkeys(row.get("name", "") for row in rows)) if everything else wanted
    if everything and not names:
        return ["no model is in the repository (expect: [] is for a server without)"]
    return [
        f"model {name} is not ready: {(others or ['Triton does not list it'])[0]}"
        for name in names
        if (others := [state for state in states.get(name, ()) if state != "READY"]) or name not in states
    ]
