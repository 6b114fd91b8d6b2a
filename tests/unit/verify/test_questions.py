"""What the whole suite asks a host: commands that every shell can read, none of which can hang."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from provision.probe import Probe
from provision.run.gather import script_of
from tests.unit.verify import test_toolkit_checks as toolkit
from tests.unit.verify.healthy_driver import driver
from tests.unit.verify.healthy_triton import serving, settings
from tests.unit.verify.played_host import look

BARE = re.compile(r"(?:^|\$\(|; |&& |\|\| |\n)[ \t]*(nvidia-smi|nvidia-ctk|docker|bash)\b")
"""Programs that can hang, without a limit before them."""


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """All questions to a healthy host with all roles, one of whose instances wants something odd."""
    wanted = {**driver(), **toolkit.toolkit(), **settings(env={"A": "$(touch /tmp/pwned)"})}
    host = serving(wanted)
    answers, files = {**toolkit.HEALTHY.answers, **host.answers}, {**toolkit.HEALTHY.files, **host.files}
    return look(replace(host, answers=answers, files=files), wanted)[1].asked


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_questions_are_one_script_that_the_shells_can_read(asked: list[str], shell: str) -> None:
    script = script_of([Probe(str(place), line) for place, line in enumerate(asked)], "mark")
    for text in (*asked, script):
        done = subprocess.run([shell, "-n"], input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, (text, done.stderr)


def test_every_program_that_can_hang_has_a_time_limit(asked: list[str]) -> None:
    assert BARE.search("x; docker info")
    inside = re.compile(r"sh -c '.*", re.DOTALL)  # what a container runs has the limit of docker run
    assert [line for line in asked if BARE.search(inside.sub("", line))] == []


def test_settings_are_never_commands(asked: list[str]) -> None:
    assert [line for line in asked if "/tmp/pwned" in line] == []
