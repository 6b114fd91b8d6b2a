"""Docker's configuration, what dockerd has loaded of it, and images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.command import Output
from provision.errors import Refusal
from provision.resources.base import ABSENT, UNKNOWN, Change, Missing, Planned
from provision.resources.docker import (
    DAEMON_JSON,
    RELOADABLE,
    DaemonJson,
    DaemonLoaded,
    Image,
    as_text,
    merge,
    parse,
)
from provision.resources.file import FileState

NVIDIA = {
    "default-runtime": "nvidia",
    "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},
}
WANTED = DaemonJson(NVIDIA)


def file(content: bytes | None, type_: str = "file", owner: str = "root") -> FileState:
    return FileState(type_, "0640", owner, "root", content)


def change_of(existing: Mapping[str, Any], wanted: Mapping[str, Any] = NVIDIA) -> Change:
    change = DaemonJson(wanted).change(file(json.dumps(existing).encode()), Planned())
    assert change is not None
    return change


# --- daemon.json ----------------------------------------------------------------------------------

NAMES = st.text(max_size=8) | st.sampled_from(
    ["runtimes", "nvidia", "default-runtime", "args", "path", "log-opts"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=12)
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=4), max_leaves=12
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=6)


def lost(before: Any, after: Any, wanted: Any) -> list[str]:
    """Keys of ``before`` that ``after`` has not, or has with another value, though nobody wanted one."""
    found = []
    for key, value in before.items():
        if key not in after:
            found.append(key)
        elif key not in wanted:
            found += [key] if as_text({"": after[key]}) != as_text({"": value}) else []
        elif isinstance(value, dict) and isinstance(wanted[key], dict):
            found += lost(value, after[key], wanted[key])
    return found


@settings(max_examples=120, deadline=None)
@given(existing=DOCUMENTS, wanted=DOCUMENTS | st.just(NVIDIA), indent=st.sampled_from([None, 2, "\t"]))
def test_nothing_of_the_users_is_lost(existing: Any, wanted: Any, indent: Any) -> None:
    content = json.dumps(existing, indent=indent).encode()
    document = parse(content)
    assert document == existing or json.dumps(document) == json.dumps(existing)
    merged = merge(document, wanted)
    assert lost(existing, merged, wanted) == []
    assert list(merged)[: len(existing)] == list(existing)
    assert merge(merged, wanted) == merged
    assert parse(as_text(merged)) == merged


@settings(max_examples=60, deadline=None)
@given(existing=DOCUMENTS)
def test_a_second_run_has_nothing_to_do(existing: Any) -> None:
    first = WANTED.change(file(json.dumps(existing).encode()), Planned())
    written = as_text(merge(existing, NVIDIA))
    assert WANTED.change(file(written), Planned()) is None
    if first is not None:
        assert written.decode() in first.script


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty, which dockerd refuses"),
        (b" \n\t", "is empty"),
        (b"\xef\xbb\xbf{}", "daemon.json:1: not JSON: Unexpected UTF-8 BOM"),
        (b"[]", "holds a JSON list, not an object"),
        (b'"x"', "holds a JSON str, not an object"),
        (b"null", "not an object"),
        (b"{}\n{}", "daemon.json:2: not JSON: Extra data"),
        (b'{"a": 1,\n}', "daemon.json:"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e400}', "1e400 is not a number"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' is there twice"),
        (b"{'a': 1}", "daemon.json:1: not JSON"),
        (b'{"a": 1} // mine', "Extra data"),
        (b'{"a": "\xff"}', "is not UTF-8: byte 7"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "cannot be kept as it is"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be kept as it is"),
    ],
)
def test_a_file_that_cannot_be_read_is_never_overwritten(content: bytes, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        WANTED.change(file(content), Planned())
    assert says in caught.value.message
    assert DAEMON_JSON in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("type_", "says"), [("directory", "is a directory"), ("file", "is too large")])
def test_what_is_not_a_readable_file_is_never_overwritten(type_: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        WANTED.change(file(None, type_), Planned())


def test_a_host_without_the_file() -> None:
    for state in (ABSENT, file(None, "dangling link")):
        change = WANTED.change(state, Planned())
        assert change is not None
        assert (change.action, change.resource) == ("create", f"file:{DAEMON_JSON}")
        assert change.summary == f"set default-runtime, runtimes in {DAEMON_JSON}"
        assert change.guard == f"[ ! -e {DAEMON_JSON} ]"
        assert f"owned {DAEMON_JSON} '0644 root:root'" in change.done


def test_mode_and_owner_stay_as_they_are() -> None:
    change = WANTED.change(file(b"{}", owner="docker"), Planned())
    assert change is not None
    assert f"write_file {DAEMON_JSON} 0640 docker:root" in change.script
    nobodys = WANTED.change(file(b"{}", owner="UNKNOWN"), Planned())
    assert nobodys is not None
    assert f"write_file {DAEMON_JSON} 0644 root:root" in nobodys.script


def test_the_diff_shows_only_what_changes() -> None:
    existing = {"log-driver": "local", "runtimes": {"kata": {"path": "/opt/kata"}}}
    change = DaemonJson(NVIDIA).change(file(as_text(existing)), Planned())
    assert change is not None
    changed = [line[1:].strip() for line in change.diff.splitlines() if line[:1] in "+-" and line[1:2] == " "]
    assert '"log-driver": "local",' not in changed
    assert '"default-runtime": "nvidia"' in changed
    assert change.reason == "other keys stay as they are"


@pytest.mark.parametrize(
    ("existing", "wanted", "signal"),
    [
        ({}, NVIDIA, "docker:reload"),
        ({"default-runtime": "runc", "x": 1}, NVIDIA, "docker:reload"),
        (NVIDIA, {**NVIDIA, "data-root": "/data"}, "docker:restart"),
        (NVIDIA, {**NVIDIA, "log-driver": "local", "debug": True}, "docker:restart"),
        (NVIDIA | {"data-root": "/data"}, {"data-root": "/data", "debug": True}, "docker:reload"),
        ({}, {"bip": None}, "docker:restart"),
        ({"live-restore": 1}, {"live-restore": True}, "docker:reload"),
        *[({}, {key: {}}, "docker:reload") for key in sorted(RELOADABLE)],
    ],
)
def test_dockerd_is_restarted_only_where_a_reload_is_not_enough(
    existing: dict[str, Any], wanted: dict[str, Any], signal: str
) -> None:
    assert change_of(existing, wanted).signals == (signal,)


def test_a_change_of_any_kind_is_seen() -> None:
    """For Python True equals 1 and 1 equals 1.0; dockerd refuses the one where it wants the other."""
    assert change_of({"live-restore": 1}, {"live-restore": True}).summary.startswith("set live-restore in")
    assert change_of({}, {"bip": None}).summary.startswith("set bip in")


def test_half_a_surrogate_pair_survives() -> None:
    content = b'{"label": "\\ud800"}'
    assert parse(as_text(parse(content))) == parse(content)


def test_the_layout_is_that_of_nvidia_ctk() -> None:
    """As nvidia-ctk 1.20.0 writes it, but for the newline at the end."""
    assert as_text(NVIDIA).decode() == (
        '{\n    "default-runtime": "nvidia",\n    "runtimes": {\n        "nvidia": {\n'
        '            "args": [],\n            "path": "nvidia-container-runtime"\n        }\n    }\n}\n'
    )


# --- what dockerd has loaded ----------------------------------------------------------------------

LOADED = DaemonLoaded("nvidia", ("nvidia",))
INFO = (
    b'"nvidia" {"io.containerd.runc.v2":{"path":"runc"},'
    b'"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}\n'
)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Output(0, INFO), ("nvidia", frozenset({"io.containerd.runc.v2", "nvidia", "runc"}))),
        (Output(0, b'"runc" {"runc":{"path":"runc"}}\n'), ("runc", frozenset({"runc"}))),
        (Output(0, b"absent\n"), UNKNOWN),
        (Output(0, b'"" null\n', b"Cannot connect to the Docker daemon"), UNKNOWN),
        (Output(1, b"\n", b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock."), UNKNOWN),
        (Output(124), UNKNOWN),
        (Output(0, b"nonsense\n"), UNKNOWN),
    ],
)
def test_what_dockerd_says_of_its_runtimes(answer: Output, state: object) -> None:
    assert DaemonLoaded.states([LOADED], answer) == {LOADED.id: state}


def planned(*resources: tuple[str, str]) -> Planned:
    return Planned(tuple(Change(name, action, "", "", "") for name, action in resources))


@pytest.mark.parametrize(
    ("state", "earlier", "reloads"),
    [
        (("nvidia", frozenset({"nvidia", "runc"})), planned(), False),
        (("runc", frozenset({"nvidia", "runc"})), planned(), True),
        (("nvidia", frozenset({"runc"})), planned(), True),
        (UNKNOWN, planned(), False),
        (("runc", frozenset({"runc"})), planned(("service:docker.service", "start")), False),
        (("runc", frozenset({"runc"})), planned(("service:docker.service", "enable")), True),
        (("runc", frozenset({"runc"})), planned(("handler:restart docker.service", "run")), False),
        (("runc", frozenset({"runc"})), planned(("handler:reload docker.service", "run")), False),
    ],
)
def test_a_dockerd_that_runs_with_something_else_is_reloaded(
    state: tuple[str, frozenset[str]] | Missing, earlier: Planned, reloads: bool
) -> None:
    change = LOADED.change(state, earlier)
    assert (change is not None) == reloads
    if change:
        assert (change.action, change.done) == ("reload", "docker_knows nvidia nvidia")


# --- images ---------------------------------------------------------------------------------------

TAG = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"
DIGEST = "sha256:" + "0a" * 32


def image_answer(tags: list[str] | None, digests: list[str] | None) -> bytes:
    return f"{json.dumps(tags)} {json.dumps(digests)}\n".encode()


@pytest.mark.parametrize(
    ("ref", "tags", "digests", "there"),
    [
        (TAG, [TAG], [], True),
        (TAG, ["nvcr.io/nvidia/tritonserver:24.08-py3"], [], False),
        ("docker.io/library/busybox:1.36", ["busybox:1.36"], None, True),
        ("docker.io/me/app:1", ["me/app:1"], None, True),
        ("busybox:1.36", ["docker.io/library/busybox:1.36"], None, True),
        (f"nvcr.io/nvidia/tritonserver@{DIGEST}", [], [f"nvcr.io/nvidia/tritonserver@{DIGEST}"], True),
        (f"{TAG}@{DIGEST}", [], [f"nvcr.io/nvidia/tritonserver@{DIGEST}"], True),
        (f"localhost:5000/t@{DIGEST}", None, [f"localhost:5000/t@{DIGEST}"], True),
        (f"localhost:5000/t:1@{DIGEST}", None, [f"localhost:5000/t@{DIGEST}"], True),
        (f"{TAG}@{DIGEST}", [TAG], [], False),
    ],
)
def test_an_image_is_known_by_any_of_its_names(
    ref: str, tags: list[str] | None, digests: list[str] | None, there: bool
) -> None:
    image = Image(ref)
    found = Image.states([image], Output(0, image_answer(tags, digests)))
    assert found == {image.id: True if there else ABSENT}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Output(1, b"\n", b"Error: No such image: nvcr.io/nvidia/tritonserver:24.07\n"), ABSENT),
        (Output(1, b"", b"Error response from daemon: No such image: x:1\n"), ABSENT),
        (Output(0, b"unknown\n"), UNKNOWN),
        (Output(1, b"", b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n"), UNKNOWN),
        (Output(124), UNKNOWN),
    ],
)
def test_absent_and_unknown_images_are_told_apart(answer: Output, state: Missing) -> None:
    assert Image.states([Image(TAG)], answer) == {f"image:{TAG}": state}


def test_one_image_of_two_is_there() -> None:
    answer = Output(1, image_answer([TAG], []), b"Error: No such image: other:1\n")
    found = Image.states([Image(TAG), Image("other:1")], answer)
    assert found == {f"image:{TAG}": True, "image:other:1": ABSENT}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ABSENT, "it is not on the host"),
        (UNKNOWN, "Docker cannot be asked yet (assumed absent)"),
        (True, None),
    ],
)
def test_an_image_is_pulled_once(state: bool | Missing, reason: str | None) -> None:
    change = Image(TAG).change(state, Planned())
    assert (change.reason if change else None) == reason
    assert change is None or (change.action, change.script) == ("pull", f"docker pull --quiet {TAG}")
