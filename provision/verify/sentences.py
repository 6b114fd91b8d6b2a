"""What became of a test, in a sentence for people."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path

import pytest

from provision.causes.known_messages import cause
from provision.data import data
from provision.errors import HostError
from provision.finding import Concern, Finding
from provision.probe import Output
from provision.verify.outcome import Verdict

FIXTURES = ("host", "facts", "settings", "target", "instance", "instance_name")
"""What a test may ask for, beside pytest's own and those of its folder."""

UNEXPECTED = re.compile(
    r"Unexpected exit code (\d+) for CommandResult\(.*?command=b(['\"])(.*?)\2, _stdout=.*\)(?=: |$)",
    re.DOTALL,
)
"""What testinfra says of a command that failed, with all that it printed."""

LONGEST = 300
"""Characters of an assertion that are shown."""


CHECK = "the check itself is at fault, or met what it does not know"

UNREADABLE = (ValueError, LookupError, TypeError, RecursionError)
"""What reading an answer ends with that is not what its program prints."""

SHOWN = 80
"""Characters of such an answer that are shown."""


def said(
    error: BaseException, last: Output | None = None, hint: str | None = None, asked: str = ""
) -> tuple[str, str | None]:
    """The sentence and the hint of whatever ended a test.

    A hint is the finding's own, or else that of the test's mark, or else that of a known message in what its
    last command printed.

    :param last: the answer to the test's last command.
    :param hint: that of the test's mark.
    :param asked: the test's last command.
    """
    if last and isinstance(error, UNREADABLE) and _is_of_reading(error):
        return _unreadable(error, last, asked)
    message, advice = _said(error, last, hint)
    # testinfra shows the object of a command that failed; what that printed is told beside it.
    message = UNEXPECTED.sub(r"\3: exit code \1", message)
    return re.sub(r" ?CommandResult\(backend=.*_stderr=[^)]*\)", "", message, flags=re.DOTALL), advice


def _said(error: BaseException, last: Output | None, hint: str | None) -> tuple[str, str | None]:
    if isinstance(error, Finding | HostError):
        return error.message, error.hint or hint
    if isinstance(error, pytest.skip.Exception):
        return str(error.msg), None
    known = cause(last) if last and not last.ok and (last.err or last.exit_code in (124, 137)) else None
    why = f": {known[0]}" if known and known[0] else ""
    advice = hint or (known[1] if known else None)
    if isinstance(error, AssertionError):
        return _assertion(error) + why, advice
    if isinstance(error, pytest.fail.Exception):
        return str(error.msg) + why, advice
    if isinstance(error, pytest.FixtureLookupError):
        return f"there is no fixture {error.argname!r}", f"ours are {', '.join(FIXTURES)}"
    first = str(error).strip().partition("\n")[0]
    return (
        f"{type(error).__name__}: {first} ({_place(error)})",
        advice or CHECK,
    )


def _is_of_reading(error: BaseException) -> bool:
    """Whether an error comes from what tests call, or from a test of ours; a site's test may be at fault."""
    file = traceback.extract_tb(error.__traceback__)[-1].filename
    return not Path(file).name.startswith(("test_", "conftest")) or Path(file).is_relative_to(data("suite"))


def _unreadable(error: BaseException, last: Output, asked: str) -> tuple[str, str | None]:
    """Which program printed what, where nothing that reads it knows what it is."""
    words = asked.strip().rpartition("\n")[2].split()
    if words[:2] == ["timeout", "-k"]:
        words = words[4:]
    program = words[0] if words else ""
    # Functions of ours stand before the line that calls them.
    known = re.fullmatch(r"[\w./-]+", program) and f"{program}() {{" not in asked
    text = " ".join((last.out or last.err)[: SHOWN * 2].split())
    printed = f"{text[:SHOWN]}{'…' * (len(text) > SHOWN)}" if text else "nothing"
    place = f"({type(error).__name__}, {_place(error)})"
    if not known:
        return f"an answer of the host cannot be read: {printed} {place}", CHECK
    return f"{program} printed what cannot be read: {printed} {place}", f"on the host: type -a {program}"


def verdict_of(report: pytest.TestReport, error: BaseException | None) -> Verdict:
    """The verdict of a check."""
    if isinstance(error, Concern):
        return "warn"
    if report.skipped:
        return "skip"
    return "pass" if report.passed else "fail"


def _assertion(error: AssertionError) -> str:
    """The text that a test gave to its assertion, or the assertion with what pytest says of its values."""
    first, *rest = str(error).strip().splitlines() or [""]
    if first and not first.startswith("assert "):
        return first
    source = _source(error)
    lines = [first.removeprefix("assert "), *(line.strip(" +") for line in rest)]
    # What pytest says of where a value comes from is in the source, and says how testinfra is made.
    values = [line for line in lines if not re.match(r"(where|and) +\S.* = ", line)]
    if ".mode" in source:
        values = [re.sub(r"\b\d+\b", lambda number: f"0o{int(number[0]):o}", value) for value in values]
    told = ", ".join(value for value in values if value not in ("", "False", "not True") and value != source)
    return (
        f"{source or 'an assertion'} is not true{f': {told}' if told else ''}"[:LONGEST]
        + f" ({_place(error)})"
    )


def _source(error: BaseException) -> str:
    """The line of the assertion, without the word assert and the text behind it."""
    frame = _frame(error)
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return line.partition("assert ")[2].strip()


def _place(error: BaseException) -> str:
    frame = _frame(error)
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _frame(error: BaseException) -> traceback.FrameSummary:
    """The last line of a test's own file, or of whatever it was if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).name.startswith(("test_", "conftest"))]
    return (own or frames)[-1]
