"""Runs the suite: pytest in this process, its own words kept away from standard output."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from provision.connection import Connection
from provision.data import data
from provision.errors import HostError, UnreachableError, UsageError
from provision.facts import PROBES
from provision.probe import Probe
from provision.role import Role
from provision.roles import all_roles
from provision.run.gather import gather
from provision.run.host import Doing, OnEvent, Target, facts_of
from provision.run.jobs import each
from provision.verify.evidence import Answered, Ask, Evidence
from provision.verify.outcome import HostResult, VerifyResult
from provision.verify.plugin import Plugin

SUITE = data("suite")
"""Where the tests are; a file put there is a part of the suite."""

TIMEOUT = 900.0
"""Seconds for all probes of a host: importing tensorrt_llm alone can take minutes where disks are slow."""


@contextlib.contextmanager
def asking(
    targets: Sequence[Target], forks: int, on_event: OnEvent, refresh: Callable[[], None]
) -> Iterator[Ask]:
    """Asks these hosts over our connections, which are closed at the end.

    :param forks: hosts that are asked at the same time.
    :param on_event: is told when a host is asked, and when it has answered.
    :param refresh: is called at least every second meanwhile.
    """
    connections = {target.name: Connection(target.login) for target in targets}

    def ask(probes: Mapping[str, Sequence[Probe]], more: frozenset[str]) -> Mapping[str, Answered]:
        def answered(name: str) -> Answered:
            on_event(name, Doing("answering"))
            found = _answer(connections[name], probes[name], stay=name in more)
            failed = "unreachable" if isinstance(found.error, UnreachableError) else "failed"
            on_event(name, Doing(failed if found.error else "ok"))
            return found

        return each({name: name for name in probes}, answered, forks, refresh)

    try:
        yield ask
    finally:
        for connection in connections.values():
            connection.close()


def verify(
    targets: Sequence[Target],
    ask: Ask,
    *,
    expression: str = "",
    junit: Path | None = None,
    roles: Sequence[Role] = (),
    suites: Sequence[Path] = (SUITE,),
) -> VerifyResult:
    """Run the suite on what ``ask`` finds out.

    :param expression: selects tests as pytest's ``-k`` does: by names of files, tests, hosts, instances.
    :param junit: a file for the outcome in JUnit's XML.
    :param roles: all roles that tests can be for; none: those of the product.
    :param suites: folders and files with tests.
    :raises UsageError: if a file of the suite cannot be read, or no test is selected.
    """
    if junit and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        raise UsageError(
            f"{junit} cannot be written: it is a folder, or its folder does not exist", hint="--junit FILE"
        )
    began = time.monotonic()
    plugin = Plugin(targets, ask, roles or all_roles())
    words = io.StringIO()
    with contextlib.redirect_stdout(words):
        code = run_pytest(suites[0], _arguments(suites, expression, junit), plugin)
    _refuse(plugin, code, expression, words.getvalue())
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError(
            f"no check is selected by -k {expression!r}"
            if expression
            else "there is no check for these hosts",
            hint="-k looks at the names of files, checks, hosts and instances: -k 'triton and not gpu-02'",
        )
    hosts = tuple(_result(target.name, plugin) for target in targets if target.name in plugin.answered)
    return VerifyResult(hosts, seconds=time.monotonic() - began)


def run_pytest(folder: Path, arguments: Sequence[str], plugin: object) -> int:
    """Run pytest in this process; no configuration file and no installed plugin changes the outcome.

    :raises KeyboardInterrupt: if somebody pressed Ctrl-C.
    """
    interrupts = _Interrupts()
    alone = ("--disable-plugin-autoload", "-p", "no:cacheprovider", "--import-mode=importlib")
    code = pytest.main(
        [*alone, "-c", os.devnull, f"--rootdir={folder}", *arguments], plugins=[plugin, interrupts]
    )
    if interrupts.seen:
        raise KeyboardInterrupt
    return code


class _Interrupts:
    """Remembers Ctrl-C. pytest turns it into the exit code that files which cannot be read have, too."""

    seen = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # Broken files interrupt the session with a subclass of KeyboardInterrupt.
        self.seen = self.seen or excinfo.type is KeyboardInterrupt


def _arguments(suites: Sequence[Path], expression: str, junit: Path | None) -> list[str]:
    return [
        *("--capture=no", "--tb=line", "--color=no"),
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


def _result(host: str, plugin: Plugin) -> HostResult:
    found = plugin.answered[host]
    return HostResult(
        host,
        checks=() if found.error else tuple(plugin.checks[host]),
        error=found.error or plugin.lost.get(host),
        seconds=found.seconds,
        connects=found.connection.connects if found.connection else 0,
        execs=found.connection.execs if found.connection else 0,
    )


def _answer(connection: Connection, probes: Sequence[Probe], *, stay: bool) -> Answered:
    """Ask one host everything, with one exec. What goes wrong is this host's answer and nobody else's.

    :param stay: keep the connection open afterwards.
    """
    began = time.monotonic()
    try:
        answers = gather(connection, (*PROBES, *probes), timeout=TIMEOUT)
        evidence = Evidence(facts_of(connection.login.host, answers), answers)
        return Answered(evidence, connection=connection, seconds=time.monotonic() - began)
    except HostError as error:
        return Answered(error=error, connection=connection, seconds=time.monotonic() - began)
    finally:
        if not stay:
            connection.close()
