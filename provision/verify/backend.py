"""The backend of testinfra that answers from what is known of a host, so that many tests cost few execs.

A question is a command line. What testinfra's modules read is shared by all tests of a host: the same line
has the same answer. What a test runs itself (``host.run``, ``host.check_output``) may change the host: it is
its own, and what the test reads after it is read anew, for this test alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from _pytest.outcomes import OutcomeException
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host
from testinfra.modules.base import Module

from provision.connection import Connection
from provision.errors import HostError, UnreachableError
from provision.plan.script import ACTIVE
from provision.probe import Output, Probe
from provision.run.asker import USER, require_root
from provision.run.fleet import defect
from provision.shell import assembled
from provision.verify.batch import Question, ask, ask_alone
from provision.verify.changes import changes_something

STALE = 0.2
"""Seconds after which a test that asks the same again is taken to wait for a change."""


RUNNING = Question(f"{assembled(*ACTIVE.shell)}{ACTIVE.script}")
"""Which run is changing the host meanwhile."""


ASKER = Question(USER.script)
"""Who asks the host."""


class Mode(Enum):
    """Where the answers come from."""

    REHEARSAL = "rehearsal"
    """From what is known; a test that asks for more is stopped, and its question noted."""
    KNOWN = "known"
    """From what is known, and from the host where that is not enough."""
    LIVE = "live"
    """From the host, one exec a command."""


class Unknown(OutcomeException):
    """Stops the rehearsal of a test: an answer is not known yet.

    It is an outcome as pytest's own are, or fixtures that it ends would not be cleaned up.
    """


class Aloud(OutcomeException):
    """Stops the rehearsal of a test for good: what comes now has to happen while the test really runs."""


@dataclass
class Memory:
    """What is known of one host, and what its tests want to know.

    :ivar wanted: the questions of the rehearsals since the last round, in order.
    :ivar given_up: questions that a batch did not answer; they are asked alone.
    :ivar lost: why the host can no longer be asked anything.
    :ivar seconds: how long the host was asked.
    :ivar run: the last run that was under way when it was asked.
    :ivar of_root: whether its tests are of use to root only, as ours are.
    """

    known: dict[Question, Output] = field(default_factory=dict)
    wanted: dict[Question, None] = field(default_factory=dict)
    given_up: set[Question] = field(default_factory=set)
    lost: HostError | None = None
    seconds: float = 0.0
    run: str = ""
    of_root: bool = False

    def fetch(self, connection: Connection) -> None:
        """Ask the host everything that is wanted, in one exec; what it does not answer is given up."""
        wanted, self.wanted = list(self.wanted), {}
        began = time.monotonic()
        try:
            answers = ask(connection, [*wanted, RUNNING, *([ASKER] if self.of_root else [])])
            require_root(connection.login, answers.pop(ASKER, None))
        except HostError as error:
            self.lost = error
            return
        except Exception as error:  # noqa: BLE001  # a defect of ours must not end the run of the other hosts
            self.lost = defect(connection.login.host, error)
            return
        finally:
            self.seconds += time.monotonic() - began
        self.run = answers.pop(RUNNING, Output(0)).out.strip() or self.run
        self.known |= answers
        self.given_up.update(question for question in wanted if question not in answers)


@dataclass
class Asker:
    """Who asks: a test, or a fixture that is wider than one test.

    :ivar epoch: how many commands of its own it has run; each may have changed what is read after it.
    :ivar own: these commands, in order.
    :ivar first: when it first asked each question.
    """

    name: str
    epoch: int = 0
    own: list[Question] = field(default_factory=list)
    first: dict[Question, float] = field(default_factory=dict)


class Backend(BaseBackend):  # type: ignore[misc]  # testinfra has no type information
    """Runs testinfra's commands on one host.

    :ivar mode: where the answers come from; set by the plugin.
    :ivar asker: who asks now; set by the plugin.
    :ivar before: the commands of each asker's own in its last rehearsal.
    :ivar stopped: whether this rehearsal is over: what is asked after its first unknown answer means nothing.
    :ivar cleaning: whether the test cleans up, which is never done ahead.
    :ivar aloud: for each asker whose rehearsal was stopped for good, why.
    :ivar alone: for each asker that ran commands with an exec each, why.
    :ivar last: the answer to the last command of the current test.
    :ivar asked: that command.
    """

    NAME: ClassVar[str] = "provision"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.login.host)
        self.connection = connection
        self.memory = Memory()
        self.mode = Mode.LIVE
        self.asker = Asker("")
        self.before: dict[str, list[Question]] = {}
        self.stopped = self.cleaning = False
        self.alone: dict[str, str] = {}
        self.aloud: dict[str, str] = {}
        self.last: Output | None = None
        self.asked = ""
        # What we run has a UTF-8 locale; testinfra would spend an exec on asking.
        self._encoding = "utf-8"

    def begin(self, asker: str, mode: Mode) -> None:
        """A test begins."""
        self.asker, self.mode = Asker(asker), mode
        self.stopped = self.cleaning = False
        self.last, self.asked = None, ""

    def end(self) -> None:
        """A rehearsal is over."""
        self.before[self.asker.name] = self.asker.own

    @contextlib.contextmanager
    def as_asker(self, name: str) -> Iterator[None]:
        """A fixture that is wider than one test asks meanwhile."""
        test, self.asker = self.asker, Asker(name)
        try:
            yield
        finally:
            self.end()
            self.asker = test

    def get_pytest_id(self) -> str:
        """The inventory name, without a scheme."""
        return self.connection.login.host

    def decode(self, data: bytes) -> str:
        """Text of an output; bytes that are not UTF-8 are kept as escapes."""
        return data.decode("utf-8", "backslashreplace")

    def run(
        self, command: str, *args: str, own: bool = True, seconds: float = Question.seconds, **_: Any
    ) -> CommandResult:
        """Run ``command``, its ``%s`` filled with ``args``, each quoted.

        :param own: whether a test runs it, and not a module that only reads.
        :param seconds: how long it may take.
        :raises HostError: if the host cannot be reached or the command takes too long.
        """
        line = self.get_command(command, *args)
        if "\0" in line:
            raise ValueError("a command cannot hold a NUL character")
        output = self._answer(line, own=own, seconds=seconds)
        self.last, self.asked = output, line
        return self.result(
            output.exit_code, line.encode(errors="surrogateescape"), output.stdout, output.stderr
        )

    def answers(self, probes: Sequence[Probe]) -> dict[str, Output]:
        """The answers to probes, by name; all of them are asked in one round.

        :raises HostError: if the host cannot be reached.
        """
        if self.memory.lost:
            raise self.memory.lost  # asked again, it would get a wrong password again
        lines = {probe.name: f"{assembled(*probe.shell)}{probe.script}" for probe in probes}
        if self.mode is Mode.REHEARSAL and not self.stopped:
            questions = [Question(line) for line in lines.values()]
            unknown = [question for question in questions if question not in self.memory.known]
            self.memory.wanted |= dict.fromkeys(q for q in unknown if q not in self.memory.given_up)
        return {name: self._answer(line, own=False) for name, line in lines.items()}

    def _answer(self, line: str, *, own: bool, seconds: float = Question.seconds) -> Output:
        if self.memory.lost:
            raise self.memory.lost
        if self.mode is Mode.LIVE or (self.cleaning and self.mode is Mode.KNOWN):
            return self._live(Question(line, self.asker.name, self.asker.epoch, own, seconds))
        if self.cleaning:
            self.stop("it cleans up")
        if self.stopped:
            raise Unknown(line)
        question = self._question(line, own=own, seconds=seconds)
        if question in self.memory.known:
            return self.memory.known[question]
        if self.mode is Mode.KNOWN:
            answer = self._live(question)
            self.memory.known[question] = answer
            return answer
        if question in self.memory.given_up:
            self.stop("a command of it does not end well among others")
        self.stopped = True
        self.memory.wanted[question] = None
        raise Unknown(line)

    def _question(self, line: str, *, own: bool, seconds: float) -> Question:
        """The question behind a command, of the epoch in which it is asked."""
        asker, now = self.asker, time.monotonic()
        found = self._of_now(line, own=own, seconds=seconds)
        if now - asker.first.setdefault(found, now) > STALE:
            self.stop("it waits for a change")
            asker.epoch += 1
            asker.first.clear()
            found = self._of_now(line, own=own, seconds=seconds)
        if own and changes_something(line):
            self.stop("it changes the host")
        if own:
            self._compare(found)
            asker.own.append(found)
            asker.epoch += 1
        return found

    def _of_now(self, line: str, *, own: bool, seconds: float) -> Question:
        shared = not own and self.asker.epoch == 0
        return Question(line, None if shared else self.asker.name, self.asker.epoch, own, seconds)

    def _compare(self, question: Question) -> None:
        """Stop a rehearsal that asks something else than the one before it: a time, a random name."""
        place, before = len(self.asker.own), self.before.get(self.asker.name, [])
        if place < len(before) and before[place] != question:
            self.stop("it asks something else each time")

    def stop(self, why: str) -> None:
        """End this rehearsal for good; what really runs goes on."""
        if self.mode is Mode.REHEARSAL:
            self.stopped = True
            self.aloud.setdefault(self.asker.name, why)
            raise Aloud(why)

    def _live(self, question: Question) -> Output:
        why = self.aloud.get(self.asker.name, "it asks what no rehearsal asked")
        self.alone.setdefault(self.asker.name, "it is marked live" if self.mode is Mode.LIVE else why)
        try:
            return ask_alone(self.connection, question)
        except UnreachableError as error:
            self.memory.lost = error
            raise


class VerifyHost(Host):  # type: ignore[misc]  # testinfra has no type information
    """testinfra's host, with the modules of our roles beside testinfra's own.

    :param modules: the roles' modules by the name under which tests use them.
    :param own: whether its commands are those of a test; the modules of such a host have one that is not.
    """

    def __init__(self, backend: Backend, modules: Mapping[str, type[Module]], *, own: bool = True) -> None:
        super().__init__(backend)
        self._own, self._modules = own, modules
        self._reader = VerifyHost(backend, modules, own=False) if own else self

    get_host = Host.get_host
    get_hosts = Host.get_hosts

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a command, as testinfra's host does."""
        return self.backend.run(command, *args, **{"own": self._own, **kwargs})

    def exists(self, command: str) -> bool:
        """Whether there is such a command on the path."""
        if self._own:
            return self._reader.exists(command)
        return bool(super().exists(command))

    def find_command(self, command: str, *args: Any, **kwargs: Any) -> str:
        """The path of a command, as testinfra's host finds it."""
        if self._own:
            return self._reader.find_command(command, *args, **kwargs)
        return str(super().find_command(command, *args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._own:
            return getattr(self._reader, name)
        if name in self._modules:
            found = self._modules[name].get_module(self)
            setattr(self, name, found)
            return found
        return super().__getattr__(name)


def host_of(connection: Connection, modules: Mapping[str, type[Module]]) -> VerifyHost:
    """testinfra's host for a connection, which is opened by the first question."""
    backend = Backend(connection)
    host = VerifyHost(backend, modules)
    backend.set_host(host)
    return host
