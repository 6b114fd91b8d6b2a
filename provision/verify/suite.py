"""Runs the suite: pytest in this process, its own words kept away from standard output."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.connection import Connection
from provision.data import data
from provision.errors import HostError, ProbeError, UsageError
from provision.facts import PROBES, Facts, parse
from provision.probe import Output, Probe
from provision.role import Role
from provision.roles import all_roles
from provision.run.fleet import each
from provision.run.gather import gather
from provision.run.host import Target
from provision.verify.evidence import Answered, Ask, Evidence
from provision.verify.outcome import HostResult, VerifyResult
from provision.verify.plugin import Plugin

SUITE = data("suite")
"""Where the tests are; a file put there is a part of the suite."""

TIMEOUT = 900.0
"""Seconds for all probes of a host: importing tensorrt_llm alone can take minutes where disks are slow."""

SLOW = 15.0
"""Seconds after which it is said that hosts are still being asked, and again each time they have passed."""


def verify(
    targets: Sequence[Target],
    *,
    forks: int,
    expression: str = "",
    junit: Path | None = None,
    log: Callable[[str], None],
    roles: Sequence[Role] = (),
    suites: Sequence[Path] = (SUITE,),
) -> VerifyResult:
    """Run the suite against hosts.

    :param forks: hosts that are asked at the same time.
    :param expression: selects tests as pytest's ``-k`` does: by names of files, tests, hosts, instances.
    :param junit: a file for the outcome in JUnit's XML.
    :param log: receives a line when it takes long.
    :param roles: all roles that tests can be for; none: those of the product.
    :param suites: folders and files with tests.
    :raises UsageError: if a file of the suite cannot be read, or no test is selected.
    """
    connections = {target.name: Connection(target.login) for target in targets}

    def ask(probes: Mapping[str, Sequence[Probe]], more: frozenset[str]) -> Mapping[str, Answered]:
        asked = {
            name: Questions(connections[name], tuple(questions), stay=name in more)
            for name, questions in probes.items()
        }
        return each(asked, answer, forks, _Patience(len(asked), log))

    try:
        return judge(
            targets,
            ask,
            expression=expression,
            junit=junit,
            roles=roles,
            suites=suites,
            connections=connections,
        )
    finally:
        for connection in connections.values():
            connection.close()


def judge(
    targets: Sequence[Target],
    ask: Ask,
    *,
    expression: str = "",
    junit: Path | None = None,
    roles: Sequence[Role] = (),
    suites: Sequence[Path] = (SUITE,),
    connections: Mapping[str, Connection] | None = None,
) -> VerifyResult:
    """Run the suite on what ``ask`` finds out; see :func:`verify`."""
    if junit and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        raise UsageError(
            f"{junit} cannot be written: it is a folder, or its folder does not exist", hint="--junit FILE"
        )
    began = time.monotonic()
    plugin = Plugin(targets, ask, roles or all_roles())
    words = io.StringIO()
    with contextlib.redirect_stdout(words):
        code = pytest.main(_arguments(suites, expression, junit), plugins=[plugin])
    if plugin.interrupted:
        raise KeyboardInterrupt
    _refuse(plugin, code, expression, words.getvalue())
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError(
            f"no check is selected by -k {expression!r}"
            if expression
            else "there is no check for these hosts",
            hint="-k looks at the names of files, checks, hosts and instances: -k 'triton and not gpu-02'",
        )
    hosts = tuple(
        _result(target, plugin, connections or {}) for target in targets if target.name in plugin.answered
    )
    return VerifyResult(hosts, seconds=time.monotonic() - began)


def _arguments(suites: Sequence[Path], expression: str, junit: Path | None) -> list[str]:
    """pytest's arguments; no configuration file and no installed plugin changes the outcome."""
    options = [
        "--disable-plugin-autoload",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--capture=no",
    ]
    return [
        *options,
        *("-c", os.devnull, f"--rootdir={suites[0]}", "--tb=line", "--color=no"),
        *(("-o", "junit_family=xunit2", f"--junit-xml={junit.absolute()}") if junit else ()),
        *(("-k", expression) if expression else ()),
        *map(str, suites),
    ]


def _refuse(plugin: Plugin, code: int, expression: str, words: str) -> None:
    """Raise UsageError if the suite could not run."""
    if plugin.defect:
        raise plugin.defect
    if plugin.broken:
        raise UsageError(f"the suite cannot be read: {plugin.broken[0]}", hint="mend or remove the file")
    if code == pytest.ExitCode.USAGE_ERROR and expression:
        raise UsageError(f"-k {expression!r} is not an expression", hint="-k 'triton and not canary'")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        last = words.strip().rpartition("\n")[2]
        raise UsageError(f"the suite could not run: {last}")


def _result(target: Target, plugin: Plugin, connections: Mapping[str, Connection]) -> HostResult:
    found = plugin.answered[target.name]
    connection = connections.get(target.name)
    return HostResult(
        target.name,
        checks=() if found.error else tuple(plugin.checks[target.name]),
        error=found.error or plugin.lost.get(target.name),
        seconds=found.seconds,
        connects=connection.connects if connection else 0,
        execs=connection.execs if connection else 0,
    )


@dataclass(frozen=True)
class Questions:
    """What is asked of one host; ``stay`` keeps its connection open afterwards."""

    connection: Connection
    probes: tuple[Probe, ...]
    stay: bool = False


def answer(questions: Questions) -> Answered:
    """Ask one host everything, with one exec. What goes wrong is this host's answer and nobody else's."""
    began = time.monotonic()
    connection = questions.connection
    try:
        answers = gather(connection, (*PROBES, *questions.probes), timeout=TIMEOUT)
        evidence = Evidence(_facts(connection, answers), answers)
        return Answered(evidence, connection=connection, seconds=time.monotonic() - began)
    except HostError as error:
        return Answered(error=error, seconds=time.monotonic() - began)
    finally:
        if not questions.stay:
            connection.close()


def _facts(connection: Connection, answers: Mapping[str, Output]) -> Facts:
    try:
        return parse(answers)
    except ValueError as error:
        raise ProbeError(connection.login.host, str(error)) from error


class _Patience:
    """Says now and then that hosts are still being asked."""

    def __init__(self, hosts: int, log: Callable[[str], None]) -> None:
        self.hosts, self.log = hosts, log
        self.began = self.spoke = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self.spoke >= SLOW:
            self.spoke = now
            self.log(
                f"asking {self.hosts} host{'' if self.hosts == 1 else 's'}, {now - self.began:.0f} s so far"
            )
