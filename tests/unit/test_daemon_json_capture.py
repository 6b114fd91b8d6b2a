"""What nvidia-ctk 1.20.0 made of its inputs, and what we make of the same ones.

The capture has every outcome of the real tool, byte for byte. Where ours differs, the table names each
difference; :data:`DIFFERENCES` says why we want it and how to get from our document to the tool's. A row is
right only if all its differences together lead to the very bytes of the tool, and not one of them is idle.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import simplejson

from provision.errors import Refusal
from provision.resource import ABSENT, Planned
from provision.resources.file import FileState
from provision.roles.docker.daemon_json import DaemonJson, DaemonJsonState
from provision.roles.docker.merge import merge
from provision.roles.docker.role import daemon_of
from provision.roles.docker.text import Number, as_text, parse
from tests.unit.examples import H100, settings_of

CAPTURE = Path(__file__).parent.parent / "data/captures/h100-580/docker/nvidia-ctk-1.20.0-matrix.txt"
ENTRY = {"args": [], "path": "nvidia-container-runtime"}


def cases() -> dict[str, tuple[str, int, str, bytes]]:
    """Flags, exit code, last message and resulting file of each case of the capture."""
    found = {}
    for part in CAPTURE.read_bytes().split(b"##### ")[1:]:
        head, _, body = part.partition(b"\n")
        match = re.fullmatch(
            r"(\S+) : nvidia-ctk runtime configure --runtime=docker (.*?) *--config=\S+", head.decode()
        )
        if match is None:
            continue
        code = int(re.search(rb"^rc=(\d)$", body, re.MULTILINE)[1])  # type: ignore[index]
        said = re.findall(rb"^err\| (.*)$", body, re.MULTILINE)
        message = next((line for line in said if b"panic" in line or b"level=error" in line), b"").decode()
        result = re.search(rb"^--- result (\d+) bytes.*\n", body, re.MULTILINE)
        size = int(result[1]) if result else 0
        # Of a link, the size is that of the link.
        end = body.find(b"\n}", result.end()) + 2 if result and match[1] == "link" else 0
        content = b"" if result is None else body[result.end() : end or result.end() + size]
        found[match[1]] = (match[2], code, message, content)
    return found


CASES = cases()

EXISTING = rb"""{
  "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}, "data-root": "/data/docker",
  "default-runtime": "crun", "features": {"buildkit": true},
  "runtimes": {
    "crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]},
    "nvidia": {"path": "/usr/bin/nvidia-container-runtime", "runtimeArgs": ["--x"], "args": ["--y"]}
  },
  "big": 12345678901234567890, "max-concurrent-downloads": 10, "shutdown-timeout": 1e2,
  "html": "<a&b>", "uni": "\u00e9\u00e9",
  "default-ulimits": {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}}
}
"""
"""The keys are those of the results; the capture has no inputs of cases that succeeded."""

INPUTS: dict[str, bytes | None] = {
    "missing": None,
    "missing_nodefault": None,
    "missing_cdi": None,
    "empty_obj": b"{}",
    "existing": EXISTING,
    "existing_nodef": EXISTING,
    "existing_cdi": EXISTING,
    "existing_cdi_off": EXISTING,
    "twice": EXISTING,
    "zero": b"",
    "invalid": b'{ "a": 1, }\n',
    "newline": b"\n",
    "bom": b"\xef\xbb\xbf{}",
    "null": b"null\n",
    "array": b"[]\n",
    "runtimes_null": b'{"runtimes": null}\n',
    "runtimes_arr": b'{"runtimes": []}\n',
    "def_num": b'{"default-runtime": 5}',
    "dup": b'{"a": 1, "a": 2}',
    "feat_false": b'{"features": {"cdi": false}}',
    "feat_true": b'{"features": {"cdi": true}}',
    "trail": b'{"b": 1, "a": 2} trailing',
    "link": b'{"x": 1}',
}
"""The input of every case but ``newdir``, in which the shell around the tool failed."""

Document = dict[str, Any]


def go_numbers(value: Any) -> Any:
    """Every number as Go prints the float64 that it made of it."""
    if isinstance(value, dict):
        return {key: go_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [go_numbers(item) for item in value]
    if isinstance(value, Number):
        return Number(f"{Decimal(repr(float(value.encoded_json))):f}".removesuffix(".0"))
    return value


def only_cdi(document: Document) -> Document:
    return {**document, "features": {"cdi": True}}


def bare_entry(document: Document) -> Document:
    return {**document, "runtimes": {**document["runtimes"], "nvidia": ENTRY}}


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return value


def escaped(text: bytes) -> bytes:
    for sign in b"<>&":
        text = text.replace(bytes([sign]), b"\\u%04x" % sign)
    return text


def no_newline(text: bytes) -> bytes:
    return text.removesuffix(b"\n")


def wide(text: bytes) -> bytes:
    return as_text(parse(text))


DIFFERENCES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "numbers": (
        "12345678901234567890 and 1e2 are its owner's; as float64 the first is another number",
        go_numbers,
    ),
    "features": ("the other features are its owner's; the tool loses them up to 1.20.0", only_cdi),
    "arguments": ("what its owner gave the runtime stays", bare_entry),
    "order": ("keys stay where they are, so that a diff shows what changes", sorted_keys),
    "indent": ("the file stays indented as it is", wide),
    "escapes": ("JSON needs no escapes for < > &", escaped),
    "newline": ("a text file ends with a newline", no_newline),
}
"""Why ours differs on purpose, and what leads from ours to the tool's."""
OF_DOCUMENTS = ("numbers", "features", "arguments", "order")

ALWAYS = ("newline",)
KEPT = ("numbers", "arguments", "order", "indent", "escapes", "newline")

SUCCEED: dict[str, tuple[str, ...]] = {
    "missing": ALWAYS,
    "missing_nodefault": ALWAYS,
    "missing_cdi": ALWAYS,
    "empty_obj": ALWAYS,
    "existing": KEPT,
    "existing_nodef": KEPT,
    "existing_cdi": ("features", *KEPT),
    "existing_cdi_off": KEPT,
    "twice": KEPT,
    "def_num": ALWAYS,
    "feat_false": ("order", "newline"),
    "feat_true": ("order", "newline"),
    "link": ("order", "newline"),
}
"""Cases in which both write the file, with the differences."""

REFUSED: dict[str, tuple[int, str, str]] = {
    "invalid": (1, "invalid character '}'", "daemon.json:1: not JSON: Illegal trailing comma"),
    "array": (1, "cannot unmarshal array", "holds a JSON list, not an object"),
    # A crash tells nobody what is wrong.
    "null": (2, "panic: assignment to entry in nil map", "holds a JSON null, not an object"),
    # One of the two is not what its owner meant, and dockerd takes the other.
    "dup": (0, "", 'daemon.json:1: key "a" is there twice'),
    # What follows the document is something that somebody wrote, and would be lost; dockerd refuses it, too.
    "trail": (0, "", "daemon.json:1: not JSON: text follows the end"),
}
"""Cases that we refuse: the tool's exit code and message, and ours."""

EMPTY = {"zero": "EOF", "newline": "EOF", "bom": "invalid character 'ï'"}
"""Cases that the tool refuses, with its message, and that we read as an object without keys."""

MENDED = {"runtimes_null": "interface {} is nil", "runtimes_arr": "interface {} is []interface {}"}
"""Cases in which the tool panics; ours puts an object there, remembers what was there, and puts it back."""


def daemon(flags: str) -> DaemonJson:
    """What we want where the tool is called with these flags."""
    found = daemon_of(settings_of("docker", daemon={}), H100)  # type: ignore[arg-type]
    wanted = {
        key: value
        for key, value in found.declared.items()
        if key == "runtimes" or "--set-as-default" in flags
    }
    if "--cdi.enabled" in flags.split():
        wanted = {
            "default-runtime": wanted["default-runtime"],
            "features": {"cdi": True},
            "runtimes": wanted["runtimes"],
        }
    # The tool wants a path relative to PATH, whatever path its owner gave.
    return DaemonJson(wanted, found.initial)


def ours(case: str) -> Document:
    content = INPUTS[case]
    wanted = daemon(CASES[case][0])
    return merge(parse(content) if content is not None else {}, (), wanted.declared, wanted.initial).document


def as_the_tool(case: str, differences: tuple[str, ...]) -> bytes:
    """Our result with these differences undone."""
    document: Any = copy.deepcopy(ours(case))
    for name in differences:
        if name in OF_DOCUMENTS:
            document = DIFFERENCES[name][1](document)
    text = as_text(document, INPUTS[case] or b"")
    for name in differences:
        if name not in OF_DOCUMENTS:
            text = DIFFERENCES[name][1](text)
    return text


def test_every_case_of_the_capture_has_its_row() -> None:
    assert set(INPUTS) == {*SUCCEED, *REFUSED, *EMPTY, *MENDED} == set(CASES) - {"newdir/sub/daemon"}
    assert set(DIFFERENCES) == {name for names in SUCCEED.values() for name in names}


@pytest.mark.parametrize("case", SUCCEED)
def test_our_file_is_the_tools_but_for_what_differs_on_purpose(case: str) -> None:
    _, code, _, result = CASES[case]
    assert code == 0
    assert as_the_tool(case, SUCCEED[case]) == result
    for name in SUCCEED[case]:
        rest = tuple(other for other in SUCCEED[case] if other != name)
        assert as_the_tool(case, rest) != result, f"{name} makes no difference"


@pytest.mark.parametrize("case", [case for case in SUCCEED if case != "link"])
def test_the_change_writes_what_the_merge_made(case: str) -> None:
    content = INPUTS[case]
    state = ABSENT if content is None else FileState("file", "0644", "root", "root", content)
    change = daemon(CASES[case][0]).change(DaemonJsonState(state), Planned())
    assert change is not None
    assert change.action == ("create" if content is None else "update")


def test_a_file_that_is_right_is_not_written_again() -> None:
    """The tool writes the same bytes once more, with a new time, and recommends a restart of Docker."""
    result = CASES["twice"][3]
    state = FileState("file", "0644", "root", "root", result)
    assert daemon("--set-as-default").change(DaemonJsonState(state), Planned()) is None


@pytest.mark.parametrize("case", REFUSED)
def test_what_we_refuse(case: str) -> None:
    code, tools, says = REFUSED[case]
    assert CASES[case][1] == code
    assert tools in CASES[case][2]
    state = FileState("file", "0644", "root", "root", INPUTS[case])
    with pytest.raises(Refusal, match=re.escape(says)):
        daemon(CASES[case][0]).change(DaemonJsonState(state), Planned())
    if code == 1:
        assert CASES[case][3] == INPUTS[case], "the tool leaves the file alone, too"


@pytest.mark.parametrize("case", EMPTY)
def test_what_has_no_keys(case: str) -> None:
    assert EMPTY[case] in CASES[case][2]
    assert ours(case) == {
        **parse(INPUTS[case] or b""),
        "runtimes": {"nvidia": ENTRY},
        "default-runtime": "nvidia",
    }


@pytest.mark.parametrize("case", MENDED)
def test_what_makes_the_tool_panic(case: str) -> None:
    assert CASES[case][1] == 2
    assert MENDED[case] in CASES[case][2]
    assert ours(case) == {"runtimes": {"nvidia": ENTRY}, "default-runtime": "nvidia"}
    existing = parse(INPUTS[case] or b"")
    wanted = daemon(CASES[case][0])
    settings = merge(existing, (), wanted.declared, wanted.initial).settings
    back: Mapping[str, Any] = merge(ours(case), settings, {}).document
    assert json.loads(simplejson.dumps(back)) == json.loads(INPUTS[case] or b"")
