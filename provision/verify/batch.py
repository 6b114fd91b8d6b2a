"""Questions of many tests to one host, in one exec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provision.connection import Connection, DeadlineError, FloodError, UnfinishedError
from provision.probe import Output, Probe, words
from provision.run.gather import answered, new_mark, script_of

MOST = 1800.0
"""Seconds that a batch may take: importing tensorrt_llm alone can take minutes where disks are slow."""

BASE = 60.0
"""Seconds for all commands of a batch that have no deadline of their own."""

APART = "shell/apart.sh"

KILL_AFTER = 5.0
"""Seconds between the two signals with which a command is ended."""


@dataclass(frozen=True)
class Question:
    """A command that a host is asked to run.

    :ivar asker: whose it is; None where its answer is for all.
    :ivar epoch: how many commands of its own the asker had run before.
    :ivar own: whether the asker runs it itself, and not a module that only reads.
    :ivar seconds: how long it may take.
    """

    line: str
    asker: str | None = None
    epoch: int = 0
    own: bool = False
    seconds: float = 120.0

    def probe(self, name: str) -> Probe:
        """The question among others. A test's own command may end its shell, and leave programs behind."""
        if not self.own:
            return Probe(name, self.line)
        return Probe(name, words("apart", f"{self.seconds:g}", self.line), (APART,))

    @property
    def limited(self) -> str:
        """The command in a shell of its own, with its deadline."""
        return words("timeout", "-k", f"{KILL_AFTER:g}", f"{self.seconds:g}", "/bin/sh", "-c", self.line)


def ask(connection: Connection, questions: Sequence[Question]) -> dict[Question, Output]:
    """Ask a host all questions in one exec. After a command that hangs or ends it there are no answers.

    What a command left behind may print after the last answer; it is of no question.

    :raises HostError: if the host cannot be reached, or cannot run a script at all.
    """
    inside = sorted(questions, key=lambda question: question.seconds)
    probes = [question.probe(str(place)) for place, question in enumerate(inside)]
    mark = new_mark()
    seconds = min(MOST, BASE + sum(q.seconds for q in inside if q.own or q.seconds != Question.seconds))
    try:
        output = connection.run(
            script_of(probes, mark), timeout=seconds, what=f"{len(probes)} questions of the checks"
        )
    except UnfinishedError as error:
        output = error.partial
    answers = answered(output, probes, mark)
    return {inside[int(name)]: answer for name, answer in answers.items()}


def ask_alone(connection: Connection, question: Question) -> Output:
    """Ask one question with an exec of its own. A command that does not end in its time has exit code 124.

    What a command printed beyond the cap is lost; its standard error then says so.

    :raises HostError: if the host cannot be reached, or cannot run a script at all.
    """
    try:
        return connection.run(
            question.limited, timeout=question.seconds + KILL_AFTER, what="a command of a check"
        )
    except FloodError as error:
        return Output(1, b"", f"{error.message}\n".encode())
    except DeadlineError as error:
        said = f"did not end within {question.seconds:g} s".encode()
        return Output(124, error.partial.stdout, error.partial.stderr + said)
    except UnfinishedError as error:
        return error.partial
