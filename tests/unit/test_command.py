"""Commands as values: quoting that a real shell reads back, and output that is never lost."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.probe import Output, quote, words
from tests.unit.sandbox import SHELLS

ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NASTY = [
    "",
    " ",
    "-n",
    "--",
    "'",
    '"',
    "\\",
    "$HOME",
    "$(id)",
    "`id`",
    "a\nb\n",
    "\t",
    "*",
    "~",
    "!",
    "é🙂",
    "\x01\x7f",
    ";",
]


def read_back(shell: str, values: list[str]) -> list[str]:
    """The arguments that a program gets when the shell runs it with quoted ``values``."""
    script = "printf '%s\\0' " + words(*values)
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    return ran.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_value_reaches_a_program_as_one_argument(shell: str) -> None:
    assert read_back(shell, NASTY) == NASTY


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(ANYTHING, min_size=1, max_size=30))
def test_any_text_reaches_a_program_as_one_argument(shell: str, values: list[str]) -> None:
    assert read_back(shell, values) == values


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_output_keeps_bytes_that_are_not_utf8() -> None:
    output = Output(1, b"ok\xff\n", b"\xc3")
    assert (output.out, output.err, output.ok) == ("ok\\xff\n", "\\xc3", False)
    assert Output(0).ok
