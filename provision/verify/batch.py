"""Questions of many tests to one host, in one exec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provision.connection import Connection, DeadlineError, UnfinishedError
from provision.probe import Output, Probe, words
from provision.run.gather import answered, new_mark, parse, script_of

MOST = 1800.0
"""Seconds that a batch may take: importing tensorrt_llm alone can take minutes where disks are slow."""

BASE = 60.0
"""Seconds for all commands of a batch that have no deadline of their own."""

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

    @property
    def script(self) -> str:
        """What the host runs. A test's own command may end its shell, so it gets one of its own."""
        return self.limited if self.own else self.line

    @property
    def limited(self) -> str:
        """The command in a shell of its own, with its deadline."""
        return words("timeout", "-k", f"{KILL_AFTER:g}", f"{self.seconds:g}", "/bin/sh", "-c", self.line)


def ask(connection: Connection, questions: Sequence[Question]) -> dict[Question, Output]:
    """Ask a host all questions in one exec. After a command that hangs or ends it, there are no answers.

    :raises HostError: if the host cannot be reached, or cannot run a script at all.
    """
    inside = sorted(questions, key=lambda question: question.seconds)
    probes = [Probe(str(place), question.script) for place, question in enumerate(inside)]
    mark = new_mark()
    seconds = min(MOST, BASE + sum(q.seconds for q in inside if q.own or q.seconds != Question.seconds))
    try:
        output = connection.run(
            script_of(probes, mark), timeout=seconds, what=f"{len(probes)} questions of the checks"
        )
        answers = parse(output, probes, mark)
    except UnfinishedError as error:
        answers = answered(error.partial, probes, mark)
    except ValueError:
        answers = {}
    return {inside[int(name)]: answer for name, answer in answers.items()}


def ask_alone(connection: Connection, question: Question) -> Output:
    """Ask one question with an exec of its own. A command that does not end in its time has exit code 124.

    :raises HostError: if the host cannot be reached, or cannot run a script at all.
    """
    try:
        return connection.run(
            question.limited, timeout=question.seconds + KILL_AFTER, what="a command of a check"
        )
    except DeadlineError as error:
        said = f"did not end within {question.seconds:g} s".encode()
        return Output(124, error.partial.stdout, error.partial.stderr + said)
    except UnfinishedError as error:
        return error.partial
