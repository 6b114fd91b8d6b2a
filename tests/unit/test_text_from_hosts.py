"""What hosts say is data: it steers no terminal and forges no line, whatever it holds."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from provision.cli.progress import Progress
from provision.cli.terminal import log, write_data, write_json
from provision.errors import LONGEST, ChangeError, HostError, visible
from provision.plan import report
from provision.plan.plan import Plan
from provision.plan.result import Doing, Result
from provision.plan.script import Event
from provision.resource import Change

FORGED = "fine\ngpu-02 failed\r\x1b]0;title\x07\x1b[2J\x9b2J\u2028\u202e\u2066\x85\x0b\x0c\x7f\ud800 inv plan"
ANY = st.text(st.characters(codec=None), max_size=60) | st.just(FORGED)


def steers_nothing(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@given(ANY)
@example(FORGED)
def test_it_is_one_line(text: str) -> None:
    assert visible(text).isprintable()
    assert visible("caf\u00e9 \u2713 \\n") == "caf\u00e9 \u2713 \\n", "what is printed stays"


@given(ANY, ANY)
@example(FORGED, FORGED)
def test_an_error_about_a_host_is_one_line_and_a_hint(message: str, hint: str) -> None:
    error = HostError("h1", message, hint=hint)
    assert f"{error}{error.hint}".isprintable()
    assert HostError("h1", "x").hint is None


def test_an_error_about_a_host_is_a_sentence_even_where_the_host_says_much() -> None:
    error = HostError("h1", "x" * 9_000_000, hint="y" * 9_000_000)
    assert (len(error.message), len(error.hint or "")) == (LONGEST, LONGEST)


@pytest.mark.parametrize("terminal", [True, False])
@given(text=ANY.filter(bool))
@example(FORGED)
def test_events_and_remarks_are_a_line_each(terminal: bool, text: str) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=2000, color_system=None)
    progress = Progress(["gpu-01", "gpu-02"], console)
    progress.on_event("gpu-01", Doing("applying", 1))
    progress.on_event("gpu-01", text)
    progress.on_event("gpu-01", Event("say", output=text))
    progress.on_event("gpu-01", Event("start", 0, resource=text))
    progress.on_event("gpu-01", Event("out", output=text))
    with console.capture() as view:
        console.print(progress.view())
    progress.on_event("gpu-01", Event("ok", 0))
    assert steers_nothing(file.getvalue())
    assert steers_nothing(view.get())
    assert [line[:7] for line in file.getvalue().split("\n")] == ["gpu-01 "] * 3 + [""]
    assert [line[:7] for line in view.get().split("\n")] == ["0 of 2 ", "gpu-01 ", ""]


def of(text: str) -> Result:
    """A host that failed, whose plan and error hold this text wherever a host's words may be."""
    change = Change("r", "a", text, "true", "true", reason=text, impact=(text,), simulation=text, diff=text)
    return Result(
        "gpu-01",
        "failed",
        changes=(change,),
        notes=(text,),
        error=ChangeError("gpu-01", text, resource="r", stderr=text, hint=text),
    )


@given(ANY)
@example(FORGED)
def test_no_line_of_a_report_is_forged(text: str) -> None:
    plan = Plan("gpu-01", of(text).changes, (text,))
    shown = f"{report.plans({'gpu-01': plan}, diff=True)}{report.recap([of(text)], 'r')}"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        write_data(shown)
        log(f"error: {of(text).error}")
    assert steers_nothing(out.getvalue())
    assert steers_nothing(err.getvalue())
    assert err.getvalue().count("\n") == 1
    ours = ("gpu-01", "RECAP", "1 host", "run r;", "    ", "  hint: ", "  note: ", "  ")
    assert all(line.startswith(ours) for line in out.getvalue().split("\n") if line)


@given(ANY)
@example(FORGED)
def test_json_holds_the_text_and_steers_no_terminal(text: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        write_json({"said": text, "by": {text: "caf\u00e9"}})
    assert steers_nothing(out.getvalue())
    assert json.loads(out.getvalue()) == {"said": text, "by": {text: "caf\u00e9"}}
    assert "caf\u00e9" in out.getvalue()
