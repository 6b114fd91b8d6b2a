"""What dockerd has loaded of its configuration, and images."""

from __future__ import annotations

import json

import pytest

from provision.probe import Output
from provision.resource import ABSENT, UNKNOWN, Change, Missing, Planned
from provision.resources.image import Image
from provision.roles.docker.daemon import DaemonLoaded

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
    assert DaemonLoaded.states([LOADED], answer) == {"docker:loaded-configuration": state}


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
