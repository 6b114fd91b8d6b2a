"""Pulls of images, with a client and a registry that play their parts: bounded by progress, not by time."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from provision.plan.plan import STEPS
from provision.probe import Output
from provision.resource import ABSENT, Planned
from provision.resources.image import PULL, Image, RegistryLogin, registry_of
from provision.shell import assembled
from tests.unit.sandbox import SHELLS, Sandbox

IMAGE = Image("registry.example.org/a:1")
CLIENT = """#!/bin/sh
[ "$1 $2" = "pull registry.example.org/a:1" ] || exit 9
[ -t 1 ] || {{ echo "no terminal"; exit 8; }}
{0}
"""
PROGRESS = "printf '\\033[1A\\033[2K\\rab12: Downloading [=>  ] %s MB/9 GB\\033[1B' $n"
LONG = f"n=0; while [ $n -lt 12 ]; do {PROGRESS}; sleep 0.5; n=$((n + 1)); done; echo; echo Status: got it"


@pytest.fixture(params=SHELLS[:1])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return Sandbox.make(tmp_path, request.param)


def pull(box: Sandbox, client: str, image: Image = IMAGE) -> Output:
    """What pulling comes to where Docker's client does this; its patience is 4 seconds."""
    folder = box.folder / "run/bin"
    folder.mkdir()
    (folder / "docker").write_text(CLIENT.format(client))
    (folder / "docker").chmod(0o755)
    change = image.change(ABSENT, Planned())
    assert change is not None
    head = (
        f"run=/run/provision/r1; mkdir -p $run\n{assembled(STEPS, PULL)}\nPATH=/run/bin:$PATH pull_patience=4"
    )
    return box.sh(f"{head}\n{change.script}\n")


def test_a_pull_that_makes_progress_may_take_longer_than_its_patience(box: Sandbox) -> None:
    output = pull(box, LONG)
    assert (output.exit_code, output.err) == (0, "")
    *progress, last = output.out.splitlines()
    assert last == "Status: got it"
    # The end may be seen by the last look, too.
    progress = [line for line in progress if line != last]
    assert progress
    told = "ab12: Downloading [=>  ] "
    assert any(line.startswith(told) for line in progress)
    # A line may be looked at while it is being written.
    assert all(line.startswith(told[: len(line)]) for line in progress)
    assert output.out.replace("\n", "").isprintable()
    assert not (box.folder / "run/provision/r1/pulling").exists()


@pytest.mark.parametrize("silent", [f"n=1; {PROGRESS}; exec sleep 99", "trap '' TERM HUP; exec sleep 99"])
def test_a_registry_that_goes_silent_ends_the_pull(box: Sandbox, silent: str) -> None:
    began = time.monotonic()
    output = pull(box, silent)
    ended = "no progress in 4 s: the pull of registry.example.org/a:1 was ended\n"
    assert (output.exit_code, output.err) == (1, ended)
    assert time.monotonic() - began < 30


def test_what_the_client_printed_takes_little_room(box: Sandbox) -> None:
    """A pull of an hour prints megabytes, and /run is memory."""
    chatty = (
        "n=0; while [ $n -lt 6 ]; do head -c 500000 /dev/zero | tr '\\0' x; echo; sleep 1; n=$((n + 1)); done"
    )
    watched = f"{chatty}; stat -c %b /run/provision/r1/pulling >/run/blocks; echo done"
    output = pull(box, watched)
    assert output.out.splitlines()[-1] == "done"
    assert int((box.folder / "run/blocks").read_text()) * 512 < 2_600_000


def test_a_pull_that_fails_says_why(box: Sandbox) -> None:
    why = "Error response from daemon: manifest for a:1 not found: manifest unknown"
    output = pull(box, f"echo '{why}' >&2; exit 1")
    assert (output.exit_code, output.out) == (1, f"{why}\n")


LOGIN = RegistryLogin(user="$oauthtoken", password='pw "of" me')
ASKED = """
[ "$*" = "pull registry.example.org/a:1" ] || exit 9
stat -c '%a %U' "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json"
cat "$DOCKER_CONFIG/config.json"; """


@pytest.mark.parametrize("code", [0, 3])
def test_a_login_is_there_for_the_pull_alone(box: Sandbox, code: int) -> None:
    output = pull(box, f"{ASKED} echo; echo done; exit {code}", Image("registry.example.org/a:1", LOGIN))
    assert output.exit_code == code
    folder, file, document, done = output.out.splitlines()
    assert (folder, file, done) == ("700 root", "600 root", "done")
    (login,) = json.loads(document)["auths"].items()
    assert login[0] == "registry.example.org"
    assert base64.b64decode(login[1]["auth"]) == b'$oauthtoken:pw "of" me'
    assert list((box.folder / "run/provision/r1").iterdir()) == []


def test_a_login_is_shown_nowhere_but_in_the_script() -> None:
    image = Image("a:1", LOGIN)
    change = image.change(ABSENT, Planned())
    assert change is not None
    assert "of" not in f"{change.summary} {change.diff} {change.done} {change.guard} {change.reason}"
    assert "of" not in repr(image)


@pytest.mark.parametrize(
    ("ref", "registry"),
    [
        ("nvcr.io/nvidia/tritonserver:24.07-py3", "nvcr.io"),
        ("10.0.0.1:5000/x@sha256:0", "10.0.0.1:5000"),
        ("localhost/x:1", "localhost"),
        ("ubuntu:24.04", "docker.io"),
        ("me/x:1", "docker.io"),
        ("docker.io/me/x:1", "docker.io"),
    ],
)
def test_the_registry_of_an_image(ref: str, registry: str) -> None:
    assert registry_of(ref) == registry
    assert ("index.docker.io" in LOGIN.client_configuration(registry)) is (registry == "docker.io")
