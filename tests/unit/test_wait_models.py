"""Models that must be ready: the gate of the unit and verification judge Triton's list of them alike."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.roles.triton.arguments import HTTP_RESTRICTED
from provision.roles.triton.http import Answer, models, not_ready
from provision.roles.triton.instance import Instance
from provision.roles.triton.launch import CANARY_MODEL, expected_models
from tests.unit.examples import IMAGE
from tests.unit.test_wait_ready import gate, process


@contextmanager
def server(*bodies: str, status: str = "200 OK") -> Iterator[int]:
    """The port of a server that is ready, and lists its models with these bodies in turn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = list(bodies)

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked = connection.recv(4096)
                    while b"\r\n\r\n" not in asked:
                        asked += connection.recv(4096)
                    # What is not read when it closes resets the connection, and the answer is lost.
                    told, _, text = asked.partition(b"\r\n\r\n")
                    length = int((re.findall(rb"(?i)content-length: (\d+)", told) or [b"0"])[0])
                    while len(text) < length:
                        text += connection.recv(4096)
                    if asked.startswith(b"GET "):
                        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                    else:
                        body = (left.pop(0) if len(left) > 1 else left[0]).encode()
                        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
                        connection.sendall(head.encode() + body)

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def row(name: str, state: str = "READY", reason: str = "", version: str = "1") -> dict[str, str]:
    return {"name": name, "version": version, "state": state} | ({"reason": reason} if reason else {})


BROKEN = 'Internal: "no" {weights}, [\\]'
LISTS: dict[str, tuple[list[dict[str, str]], list[str], str]] = {
    "all": ([row("a"), row("b")], ["*"], ""),
    "one has failed": (
        [row("a"), row("b", "UNAVAILABLE", BROKEN)],
        ["*"],
        f"model b is not ready: {BROKEN}",
    ),
    "another one has failed": ([row("a"), row("b", "UNAVAILABLE", "x")], ["a"], ""),
    "no reason": ([row("a", "UNAVAILABLE")], ["a"], "model a is not ready: UNAVAILABLE"),
    "not loaded": ([{"name": "a"}], ["*"], "model a is not ready: not loaded"),
    "absent": ([row("a")], ["a", "b"], "model b is not ready: Triton does not list it"),
    "replaced version": ([row("a", "UNAVAILABLE", "unloaded"), row("a", version="2")], ["*"], ""),
    "all unloaded": (
        [row("a", "UNAVAILABLE", "unloaded")],
        ["*"],
        "model a is not ready: Triton does not list it",
    ),
    "one of two versions": (
        [row("a"), row("a", "UNAVAILABLE", "bad", "2")],
        ["*"],
        "model a is not ready: bad",
    ),
    "the other version": ([row("a"), row("a", "UNAVAILABLE", "bad", "2")], ["a/1"], ""),
    "this version": (
        [row("a"), row("a", "UNAVAILABLE", "bad", "2")],
        ["a/2"],
        "model a/2 is not ready: bad",
    ),
    "nothing": ([], ["*"], "no model is in the repository (expect: [] is for a server without)"),
    "nothing wanted": ([row("a", "UNAVAILABLE", "x")], [], ""),
}


@pytest.mark.parametrize("name", LISTS)
def test_gate_and_verification_judge_alike(tmp_path: Path, name: str) -> None:
    rows, wanted, says = LISTS[name]
    body = json.dumps(rows, separators=(",", ":"))
    with server(body) as port, process(60) as pid:
        code, told, seconds = gate(tmp_path, port, 9, pid, models=wanted)
    assert (code, told.strip()) == (1 if says else 0, says)
    assert seconds < 5, "it waits for nothing"
    assert not_ready(models(Answer(200, body.encode())), wanted) == ([says] if says else [])


def test_a_model_that_is_loading_is_waited_for(tmp_path: Path) -> None:
    lists = [json.dumps([row("a", "LOADING")]), json.dumps([row("a")])]
    with server(*lists) as port, process(60) as pid:
        assert gate(tmp_path, port, 9, pid, models=["*"])[:2] == (0, "")
        code, told, _ = gate(tmp_path, port, 1, pid, models=["b"])
    assert (code, told) == (1, "model b is not ready: Triton does not list it\n")


@pytest.mark.parametrize("body", ["", "nobody", '{"error":"unauthorized"}', '["a"]'])
def test_a_list_that_is_none_is_said(tmp_path: Path, body: str) -> None:
    with server(body, status="403 Forbidden") as port, process(60) as pid:
        code, told, _ = gate(tmp_path, port, 1, pid, models=["*"])
    assert code == 1
    assert "not ready after 1 s, Triton does not list its models: HTTP 403" in told
    with pytest.raises(ValueError, match="Triton does not list its models: "):
        models(Answer(403, body.encode()))


def test_five_hundred_models_are_judged_in_a_moment(tmp_path: Path) -> None:
    body = json.dumps(
        [row(f"model-{number}") for number in range(500)] + [row("z", "UNAVAILABLE", "x" * 5000)]
    )
    with server(body) as port, process(60) as pid:
        code, told, seconds = gate(tmp_path, port, 30, pid, models=["*"])
    assert (code, told[:30]) == (1, "model z is not ready: xxxxxxxx")
    assert seconds < 5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["*"]),
        ({"expect": []}, [CANARY_MODEL]),
        ({"expect": [], "canary": False}, []),
        ({"expect": ["a", "b/2"]}, ["a", "b/2", CANARY_MODEL]),
        ({"model_control": "explicit", "load": ["a"]}, ["a", CANARY_MODEL]),
        ({"model_control": "explicit", "load": ["*"]}, ["*"]),
        ({"model_control": "explicit", "canary": False}, []),
        ({"args": ["--model-control-mode=explicit", "--load-model=a"]}, ["a", CANARY_MODEL]),
        ({"model_control": "poll"}, ["*"]),
        ({"args": [f"--{HTTP_RESTRICTED}=model-repository,trace:key=value"]}, []),
    ],
)
def test_what_is_expected(settings: dict[str, object], expected: list[str]) -> None:
    assert expected_models(Instance.model_validate({"image": IMAGE, **settings})) == expected
