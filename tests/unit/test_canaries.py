"""Canaries of the settings: the gate of the unit and verification judge an answer alike."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.probe import Output
from provision.render import render
from provision.roles.triton import http
from provision.roles.triton.canaries import CANARY_MOST, LARGEST, Canary
from tests.unit.test_instances import refusal
from tests.unit.test_wait_models import server

IN = {"name": "IN", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}


def canary(*outputs: dict[str, Any], **changes: Any) -> Canary:
    return Canary.model_validate({"model": "m", "inputs": [IN], "outputs": list(outputs), **changes})


def answer(*outputs: tuple[str, str, list[Any]]) -> str:
    """As Triton writes it."""
    found = [
        {"name": name, "datatype": kind, "shape": [len(data)], "data": data} for name, kind, data in outputs
    ]
    more = {"model_name": "m", "parameters": {"outputs": [{"name": "OUT", "data": [7]}]}, "outputs": found}
    return json.dumps(more, separators=(",", ":"), ensure_ascii=False)


def gate(one: Canary, port: int, seconds: int = 9) -> tuple[int, str]:
    """Exit code and words of the gate."""
    text = http.request("127.0.0.1", port, one.path, one.body)[2]
    argv = ["bash", "-c", render("triton/canary-gate.j2"), "gate", "127.0.0.1", str(port), str(seconds)]
    ran = subprocess.run(
        [*argv, one.model, text, one.expectation], capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stderr


def out(*data: Any, **more: Any) -> dict[str, Any]:
    return {"name": "OUT", "data": list(data), **more}


ANSWERS: list[tuple[list[dict[str, Any]], list[tuple[str, str, list[Any]]], str]] = [
    ([], [], ""),
    ([out(3.5)], [("OUT", "FP32", [3.5])], ""),
    ([out(2.6)], [("OUT", "FP32", [2.5999999046325684])], ""),
    ([out(2.6)], [("OUT", "FP32", [2.7])], "output OUT[0] is 2.7, expected 2.6"),
    ([out(2.6, tolerance=0.1)], [("OUT", "FP16", [2.7])], ""),
    ([out(1000.0, tolerance=0.01)], [("OUT", "FP64", [1009.0])], ""),
    ([out(3)], [("OUT", "FP32", [3.0])], ""),
    ([out(2.0)], [("OUT", "FP32", [math.inf])], "output OUT[0] is Infinity, expected 2.0"),
    ([out(1e20)], [("OUT", "FP64", [100000000000000000000])], ""),
    ([out(1, 2)], [("OUT", "INT32", [1, 2])], ""),
    ([out(100000)], [("OUT", "INT32", [100001])], "output OUT[0] is 100001, expected 100000"),
    (
        [out(9007199254740993)],
        [("OUT", "INT64", [9007199254740992])],
        "output OUT[0] is 9007199254740992, expected 9007199254740993",
    ),
    ([out(1, 2)], [("OUT", "INT32", [1])], "output OUT has 1 values, expected 2"),
    ([out(True, False)], [("OUT", "BOOL", [True, False])], ""),
    ([out(True)], [("OUT", "BOOL", [False])], "output OUT[0] is false, expected true"),
    ([out("a", 'b "q"/ä\\ [1,2]\n\x1f')], [("OUT", "BYTES", ["a", 'b "q"/ä\\ [1,2]\n\x1f'])], ""),
    ([out("a")], [("OUT", "BYTES", ["b"])], 'output OUT[0] is "b", expected "a"'),
    ([out("1")], [("OUT", "INT32", [1])], 'output OUT[0] is 1, expected "1"'),
    ([out(1)], [("OTHER", "INT32", [1])], "no output OUT"),
    ([out(1)], [("OTHER", "INT32", [2]), ("OUT", "INT32", [1])], ""),
]


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_gate_and_verification_judge_alike(number: int) -> None:
    wanted, given_, says = ANSWERS[number]
    one, text = canary(*wanted), answer(*given_)
    assert list(one.differences(json.loads(text))) == ([says] if says else [])
    with server(text.replace("\\u001f", "\\u001F")) as port:
        assert gate(one, port) == ((1, f"canary m: {says}\n") if says else (0, ""))


scalars: tuple[st.SearchStrategy[Any], ...] = (
    st.booleans(),
    st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\x7f"), max_size=9),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of([st.lists(kind, min_size=1, max_size=5) for kind in scalars]))
def test_an_answer_with_the_expected_values_opens_the_gate(data: list[Any]) -> None:
    one = canary(out(*data))
    text = answer(("OUT", "FP32", data))
    assert not list(one.differences(json.loads(text)))
    import re

    with server(re.sub(r"\\u[0-9a-f]{4}", lambda code: "\\u" + code[0][2:].upper(), text)) as port:
        assert gate(one, port) == (0, "")


@pytest.mark.parametrize(
    "body", ["", "nobody", "[]", '{"outputs": 3}', '{"outputs": [{"name": "OUT"}]}', "{{{["]
)
def test_an_answer_that_is_none_is_not_the_expected_one(body: str) -> None:
    one = canary(out(1))
    with server(body) as port:
        code, says = gate(one, port)
    assert code == 1
    assert says.startswith("canary m: ")
    try:
        document = json.loads(body)
    except ValueError:
        return
    assert list(one.differences(document)) == ["no output OUT"]


def test_what_triton_refuses_is_told_in_its_words() -> None:
    body = '{"error":"[request id: <id_unknown>] unexpected shape for input \'IN\'"}'
    with server(body, status="400 Bad Request") as port:
        assert gate(canary(), port) == (1, f"canary m: HTTP 400: {body}\n")


def test_an_answer_that_has_no_end_in_sight_is_not_read_to_its_end() -> None:
    body = answer(("OUT", "FP32", [0.5] * 400_000))
    assert len(body) > CANARY_MOST + 65536
    with server(body) as port:
        assert gate(canary(out(0.5)), port) == (1, "canary m: the answer is larger than 1 MiB\n")
    raw = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    for printed in (raw, raw[: CANARY_MOST + 65536]):
        told = http.parse(Output(0, printed), most=CANARY_MOST)
        assert (told.status, told.text) == (0, "the answer is larger than 1 MiB")


def test_who_does_not_answer_is_waited_for_as_long_as_the_canary_says() -> None:
    from tests.unit.test_wait_ready import server as silent

    with silent(None) as port:
        assert gate(canary(), port, seconds=1) == (1, "canary m: no answer within 1 s\n")


def test_where_a_canary_is_sent_to() -> None:
    assert canary().path == "/v2/models/m/infer"
    assert canary(model="a b/ä", version=2).path == "/v2/models/a%20b%2F%C3%A4/versions/2/infer"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": [{**IN, "shape": [3]}]}, "canaries[0].inputs[0].data: shape [3] has 3 values"),
        ({"inputs": []}, "canaries[0].inputs: "),
        ({"inputs": [{**IN, "datatype": "FP33"}]}, "canaries[0].inputs[0].datatype: "),
        ({"inputs": [{**IN, "data": [1, float("nan")]}]}, "canaries[0].inputs[0].data[1]"),
        (
            {"outputs": [{"name": "OUT", "data": ["x" * LARGEST]}]},
            f"canaries[0].outputs: more than {LARGEST} bytes",
        ),
        ({"outputs": [{"name": "a\nb", "data": [1]}]}, "canaries[0].outputs[0].name: "),
        ({"outputs": [{"name": "OUT", "data": []}]}, "canaries[0].outputs[0].data: the list is empty"),
        (
            {"outputs": [{"name": "OUT", "data": [1, "a"]}]},
            'canaries[0].outputs[0].data[1]: "a" is text, and 1 is a number',
        ),
        (
            {"outputs": [{"name": "OUT", "data": [True, 0]}]},
            "canaries[0].outputs[0].data[1]: 0 is a number, and true is a truth value",
        ),
    ],
)
def test_canaries_that_cannot_be_sent_are_refused(changes: dict[str, Any], says: str) -> None:
    assert refusal(canaries=[{"model": "m", "inputs": [IN], **changes}])[0].startswith(says)


def test_the_version_of_a_model_is_a_setting_of_its_own() -> None:
    message, hint = refusal(canaries=[{"model": "m/1", "inputs": [IN]}])
    assert message.startswith("canaries[0].model: 'm/1' is no name of a model")
    assert hint == "model: m, version: 1"


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_triton_does_not_take_as_json_is_refused(datatype: str) -> None:
    one = {"model": "m", "inputs": [{**IN, "datatype": datatype}]}
    says = f"canaries[0].inputs[0].datatype: Triton takes no {datatype} as JSON"
    message, hint = refusal(canaries=[one])
    assert message.startswith(says)
    assert "FP32" in hint


@pytest.mark.parametrize(
    ("datatype", "fit", "unfit"),
    [
        ("BOOL", [True, False], [1, 0, 0.0, "true"]),
        ("UINT8", [0, 255], [256, -1, 1.5, 1.0, True, "1"]),
        ("UINT64", [0, 2**64 - 1], [2**64, -1]),
        ("INT8", [-128, 127], [-129, 128]),
        ("INT32", [-(2**31), 2**31 - 1], [1.5, 2**31, -(2**31) - 1, False]),
        ("INT64", [-(2**63), 2**63 - 1], [2**63]),
        ("FP32", [1, 1.5, 3.4e38], [1e39, -1e39, "1.5", True]),
        ("FP64", [1, 1e39], ["1", False]),
        ("BYTES", ["", "a", "1"], [1, 1.5, True]),
    ],
)
def test_values_fit_their_datatype(datatype: str, fit: list[Any], unfit: list[Any]) -> None:
    one = {"name": "IN", "datatype": datatype, "shape": [len(fit)], "data": fit}
    assert canary(inputs=[one]).inputs[0].data == fit
    for value in unfit:
        wrong = {**one, "shape": [2], "data": [fit[0], value]}
        message, hint = refusal(canaries=[{"model": "m", "inputs": [wrong]}])
        assert message == f"canaries[0].inputs[0].data[1]: {json.dumps(value)} is no {datatype}"
        assert hint


def test_a_canary_of_a_model_that_is_not_loaded_is_refused() -> None:
    one = {"model": "m", "inputs": [IN]}
    message, hint = refusal(model_control="explicit", load=["a"], canaries=[one])
    assert message.startswith("canaries[0].model: m: with model control explicit")
    assert hint == "load: [m]"
    message, _ = refusal(args=["--http-restricted-api=inference:key=value"], canaries=[one])
    assert message.startswith("canaries: --http-restricted-api: inference is behind a header")
