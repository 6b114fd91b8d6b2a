"""Requests of the settings to models of an instance, and whether an answer is the expected one. Pure.

The gate of the unit compares in the same way, with what is on every host: see ``triton/canary-gate.j2``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from provision.role import ImpossibleError, Settings
from provision.shell import constant

LARGEST = 60_000
"""Bytes of a request, and of what it expects: the unit gives each to its gate as one argument."""

CANARY_MOST = int(constant("triton/http.sh", "canary_most"))
"""Bytes of an answer."""

Scalar = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str
Word = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1000)]
# fmt: off
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64", "BYTES",
]
# fmt: on
"""Datatypes of the KServe v2 protocol that Triton takes as JSON."""

BINARY = ("FP16", "BF16")
"""Datatypes that it takes and gives in its binary format alone (24.07: "receiving FP16 data via JSON is not
supported")."""

HINTS = {
    "BOOL": "true, or false",
    "BYTES": "text, in quotes where it reads as a number",
    "FP32": "a number of its range; with an exponent as 1.0e+5, since YAML reads 1e5 as text",
    "FP64": "a number; with an exponent as 1.0e+5, since YAML reads 1e5 as text",
}
"""What a value of a type is; of the others, integers."""

LARGEST_FP32 = 3.4028234663852886e38


def _fits(value: Scalar, datatype: Datatype) -> bool:
    """Whether an element of this type can have the value."""
    if datatype in ("BOOL", "BYTES"):
        return isinstance(value, bool if datatype == "BOOL" else str)
    if isinstance(value, bool | str):
        return False
    if datatype in ("FP32", "FP64"):
        return datatype == "FP64" or abs(value) <= LARGEST_FP32
    bits = int(datatype.lstrip("UINT"))
    least, beyond = (0, 2**bits) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return isinstance(value, int) and least <= value < beyond


def _kind(value: Scalar) -> str:
    return "text" if isinstance(value, str) else "a truth value" if isinstance(value, bool) else "a number"


class Input(Settings):
    """An input of a canary."""

    name: Word = Field(examples=["INPUT0"])
    """Name of the input."""
    datatype: Datatype = Field(examples=["FP32"])
    """Its type, as ``FP32``; text is ``BYTES``."""
    shape: list[Annotated[int, Field(ge=0)]] = Field(examples=[[1, 2]])
    """Its dimensions, the batch included."""
    data: list[Scalar] = Field(examples=[[0.5, 1.0]])
    """Its values in row-major order."""

    @field_validator("datatype", mode="before")
    @classmethod
    def _goes_as_json(cls, datatype: object) -> object:
        if datatype in BINARY:
            why = f"Triton takes no {datatype} as JSON, which is how canaries are sent"
            raise ImpossibleError(why, "ask a model that takes FP32, such as an ensemble before this one")
        return datatype

    @model_validator(mode="after")
    def _fills_its_shape(self) -> Input:
        if (wanted := math.prod(self.shape)) != len(self.data):
            why = f"shape {self.shape} has {wanted} values, and data has {len(self.data)}"
            raise ImpossibleError(why, "data: the values of all dimensions in one list", at=("data",))
        for at, value in enumerate(self.data):
            if not _fits(value, self.datatype):
                why = f"{_token(value)[:80]} is no {self.datatype}"
                raise ImpossibleError(
                    why, HINTS.get(self.datatype, "an integer of its range"), at=("data", at)
                )
        return self


class Expected(Settings):
    """An output that a canary must have."""

    name: Word = Field(examples=["OUTPUT0"])
    """Name of the output."""
    data: list[Scalar] = Field(min_length=1, examples=[[1.5]])
    """Its values in row-major order; text as text."""
    tolerance: float = Field(default=1e-5, ge=0, le=1)
    """Difference that floating-point values may have, relative, and absolute below 1; others have none."""

    @field_validator("data")
    @classmethod
    def _are_of_one_type(cls, data: list[Scalar]) -> list[Scalar]:
        for at, value in enumerate(data):
            if _kind(value) != _kind(data[0]):
                why = (
                    f"{_token(value)[:80]} is {_kind(value)}, and {_token(data[0])[:80]} is {_kind(data[0])}"
                )
                raise ImpossibleError(why, "the values of an output are of one type", at=(at,))
        return data


INPUT = {"name": "IN", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
"""An example of an input."""


class Canary(Settings):
    """A request to a model, and what it must answer."""

    model: Word = Field(examples=["resnet"])
    """Name of the model."""
    version: Annotated[int, Field(ge=1)] | None = Field(default=None, examples=[2])
    """Its version; null: the one that Triton takes."""
    inputs: list[Input] = Field(min_length=1, examples=[[INPUT]])
    """What is sent."""
    outputs: list[Expected] = []
    """What must come back; outputs that are not named may be anything."""
    timeout: int = Field(default=10, ge=1, le=600)
    """Seconds that the answer may take."""

    @field_validator("model")
    @classmethod
    def _is_a_folder(cls, model: str) -> str:
        name, _, version = model.rpartition("/")
        if name and version.isdecimal():
            raise ImpossibleError(f"{model!r} is no name of a model", f"model: {name}, version: {version}")
        return model

    @model_validator(mode="after")
    def _is_small(self) -> Canary:
        for setting, text in (("inputs", json.dumps(self.body)), ("outputs", self.expectation)):
            if len(text.encode()) > LARGEST:
                raise ImpossibleError(f"more than {LARGEST} bytes", "send a smaller request", at=(setting,))
        return self

    @property
    def path(self) -> str:
        """Where it is sent to."""
        version = f"/versions/{self.version}" if self.version else ""
        name = re.sub("[^A-Za-z0-9._~-]", lambda c: "".join(f"%{b:02X}" for b in c[0].encode()), self.model)
        return f"/v2/models/{name}{version}/infer"

    @property
    def body(self) -> dict[str, Any]:
        """What is sent, in the KServe v2 protocol."""
        return {"inputs": [tensor.model_dump() for tensor in self.inputs]}

    @property
    def expectation(self) -> str:
        """The outputs as the gate reads them: lines of a word and a token of JSON."""
        return "".join(
            f"name {_token(output.name)}\nwithin {output.tolerance!r}\n"
            + "".join(f"value {_token(value)}\n" for value in output.data)
            for output in self.outputs
        )

    def differences(self, document: Any) -> Iterator[str]:
        """Where an answer is not the expected one."""
        try:
            found = {output["name"]: output for output in document["outputs"]}
        except (LookupError, TypeError):
            found = {}
        for output in self.outputs:
            answered = found.get(output.name)
            data = answered.get("data") if isinstance(answered, dict) else None
            if not isinstance(answered, dict) or not isinstance(data, list):
                yield f"no output {output.name}"
            elif len(data) != len(output.data):
                yield f"output {output.name} has {len(data)} values, expected {len(output.data)}"
            else:
                floating = re.match("FP|BF", str(answered.get("datatype"))) is not None
                within = output.tolerance if floating else 0.0
                for at, (one, wanted) in enumerate(zip(data, output.data, strict=True)):
                    if not _equal(one, wanted, within):
                        yield f"output {output.name}[{at}] is {_token(one)}, expected {_token(wanted)}"
                        break


def _equal(one: object, other: object, within: float) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        near = math.isfinite(one) and abs(one - other) <= within * max(1, abs(one), abs(other))
        return one == other or near
    return one == other


def _token(value: object) -> str:
    """A value as Triton writes it in JSON (RapidJSON: UTF-8 as it is, escapes in capital letters)."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), text)
