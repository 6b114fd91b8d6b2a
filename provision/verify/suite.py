"""Runs the suite: pytest in this process, its own words kept away from standard output."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.connection import Connection
from provision.connection.login import Login
from provision.data import base_folder, data, require_end
from provision.errors import UnreachableError, UsageError
from provision.plan.result import Doing
from provision.role import Role
from provision.roles import all_roles
from provision.run.fleet import FORKS
from provision.run.host import OnEvent
from provision.run.jobs import each
from provision.run.target import Target
from provision.verify import fixtures
from provision.verify.backend import Backend, VerifyHost, host_of
from provision.verify.modules import modules_of
from provision.verify.outcome import HostResult, VerifyResult
from provision.verify.plugin import Running, Selection
from provision.verify.subjects import subject_of, title_of

SUITE = data("suite")
"""Where the tests are; a file put there is a part of the suite."""


CACHE = base_folder("XDG_CACHE_HOME", "~/.cache") / "gpu-provision" / "verify"
"""Where the checks that failed are remembered, for ``--lf``."""


@dataclass(frozen=True)
class Choice:
    """Which checks are made, and what is written about them.

    :ivar suites: folders and files with tests.
    :ivar expression: selects tests as pytest's ``-k`` does: by names of files, tests, hosts, instances.
    :ivar quick: without the tests that start containers.
    :ivar last_failed: only the tests that failed the last time, if any did.
    :ivar first: end at the first check that fails.
    :ivar junit: a file for the outcome in JUnit's XML.
    """

    suites: tuple[Path, ...] = (SUITE,)
    expression: str = ""
    quick: bool = False
    last_failed: bool = False
    first: bool = False
    junit: Path | None = None

    def arguments(self) -> list[str]:
        """What pytest is told."""
        options = {
            "-k": self.expression,
            "-m": "not containers" if self.quick else "",
            "--junit-xml": str(self.junit.absolute()) if self.junit else "",
        }
        return [
            *("--capture=no", "--tb=line", "--color=no", "-o", "junit_family=xunit2"),
            *(word for option, value in options.items() if value for word in (option, value)),
            *(("--lf",) if self.last_failed else ()),
            *(("-x",) if self.first else ()),
            *map(str, self.suites),
        ]


@dataclass(frozen=True)
class View:
    """Who is told how it goes.

    :ivar on_event: is told when a host is asked, and how that ended.
    :ivar refresh: is called at least every second meanwhile.
    """

    on_event: OnEvent = lambda *_: None
    refresh: Callable[[], None] = lambda: None


def verify(
    targets: Sequence[Target],
    choice: Choice = Choice(),
    *,
    roles: Sequence[Role] = (),
    forks: int = FORKS,
    view: View = View(),
    connect: Callable[[Login], Connection] = Connection,
) -> VerifyResult:
    """Run the suite against hosts, over connections that are closed at the end.

    :param roles: all roles that tests can be for; none: those of the product.
    :param forks: hosts that are asked at the same time.
    :raises UsageError: if a file of the suite cannot be read, or no test is selected.
    """
    if choice.junit:
        _require_room(choice.junit)
    began = time.monotonic()
    with _hosts(targets, roles or all_roles(), connect) as hosts:
        selection = Selection(targets, roles or all_roles())
        for host in hosts.values():
            host.backend.memory.of_root = SUITE in choice.suites

        def fetch(asked: Sequence[Backend]) -> None:
            each({b.get_pytest_id(): b for b in asked}, lambda b: _ask(b, view.on_event), forks, view.refresh)

        def done(name: str) -> None:
            view.on_event(name, Doing(_result(name, hosts[name], running).status))
            view.refresh()

        running = Running(hosts, fetch, done)
        interrupted, code, report = False, None, _Report(choice.junit)
        try:
            code = _run(choice, selection, running, report)
        except KeyboardInterrupt:
            interrupted = True
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise _nothing(choice)
        return VerifyResult(
            tuple(_result(name, hosts[name], running) for name in _selected(selection, hosts)),
            seconds=time.monotonic() - began,
            rounds=running.rehearsals.rounds,
            live=running.alone(),
            stopped=code is None or (choice.first and code == pytest.ExitCode.TESTS_FAILED),
            interrupted=interrupted,
            unwritten=report.unwritten,
        )


def _require_room(junit: Path) -> None:
    """See that a report can be written there without taking somebody's file away.

    :raises UsageError: if it cannot.
    """
    hint = "name another file: --junit FILE"
    try:
        if junit.is_dir() or not junit.absolute().parent.is_dir():
            raise UsageError(
                f"{junit} cannot be written: it is a folder, or its folder does not exist", hint=hint
            )
        if junit.is_fifo():
            require_end(junit)  # it may never have a reader either
        if junit.is_file() and not re.match(rb"\s*(<|$)", junit.read_bytes()[:64]):
            raise UsageError(f"{junit} is there, and is no report: it is left as it is", hint=hint)
    except OSError as error:
        raise UsageError(f"{junit}: {error.strerror}", hint=hint) from error


def listed(targets: Sequence[Target], choice: Choice, roles: Sequence[Role] = ()) -> dict[str, list[str]]:
    """The selected checks in their order, each with the hosts that it is for; no host is asked.

    :raises UsageError: as :func:`verify` does.
    """
    if choice.junit:
        raise UsageError("--list runs no check, so there is nothing to report", hint="leave out --junit")
    selection = Selection(targets, roles or all_roles())
    code = _run(choice, selection, more=("--collect-only",))
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise _nothing(choice)
    found: dict[str, list[str]] = {}
    for item in selection.items:
        if subject := subject_of(item):
            found.setdefault(title_of(item), []).append(subject.target.name)
    return found


def run_pytest(
    folder: Path, arguments: Sequence[str], *plugins: object, cache: Path | None = None
) -> int | None:
    """Run pytest in this process; no configuration file and no installed plugin changes the outcome.

    :param cache: where it remembers what failed; nowhere if there is none.

    Returns its exit code, or None if a test ended the run with ``pytest.exit``.

    :raises KeyboardInterrupt: if somebody pressed Ctrl-C.
    """
    interrupts = _Interrupts()
    alone = (
        *("--disable-plugin-autoload", "--import-mode=importlib"),
        *(("-o", f"cache_dir={cache}") if cache else ("-p", "no:cacheprovider")),
        # These look for what programs leave behind, by collecting garbage several times.
        *("-p", "no:unraisableexception", "-p", "no:threadexception"),
    )
    code = pytest.main(
        [*alone, "-c", os.devnull, f"--rootdir={folder}", *arguments], plugins=[*plugins, interrupts]
    )
    if interrupts.seen:
        raise KeyboardInterrupt
    return None if interrupts.exited else code


class _Interrupts:
    """Remembers Ctrl-C. pytest turns it into the exit code that files which cannot be read have, too."""

    seen = exited = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # Broken files interrupt the session with a subclass of KeyboardInterrupt.
        self.seen = self.seen or excinfo.type is KeyboardInterrupt
        self.exited = self.exited or issubclass(excinfo.type, pytest.exit.Exception)


class _Report:
    """Keeps a report that cannot be written, as on a full disk, from taking what was found with it."""

    def __init__(self, junit: Path | None) -> None:
        self.junit = junit
        self.unwritten: UsageError | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            if self.junit is None:
                raise
            if self.junit.is_file():
                self.junit.unlink()  # a part of it says something else than the whole
            message = f"{error.filename or self.junit}: {error.strerror}"
            self.unwritten = UsageError(message, hint="name another file: --junit FILE")


@contextlib.contextmanager
def _hosts(
    targets: Iterable[Target], roles: Iterable[Role], connect: Callable[[Login], Connection]
) -> Iterator[Mapping[str, VerifyHost]]:
    modules = modules_of(roles)
    connections = {target.name: connect(target.login) for target in targets}
    try:
        yield {name: host_of(connection, modules) for name, connection in connections.items()}
    finally:
        for connection in connections.values():
            connection.close()


def _ask(backend: Backend, on_event: OnEvent) -> None:
    """One round of one host."""
    name = backend.get_pytest_id()
    on_event(name, Doing("answering"))
    backend.memory.fetch(backend.connection)
    if lost := backend.memory.lost:
        on_event(name, Doing("unreachable" if isinstance(lost, UnreachableError) else "failed"))


def _run(choice: Choice, selection: Selection, *plugins: object, more: Sequence[str] = ()) -> int | None:
    """Run pytest; what keeps the suite from running is a UsageError."""
    words = io.StringIO()
    folders = list(dict.fromkeys(path if path.is_dir() else path.parent for path in choice.suites))
    with contextlib.redirect_stdout(words), _nothing_printed(), _importable(folders):
        code = run_pytest(
            folders[0],
            [*choice.arguments(), *more],
            *(fixtures, selection, *plugins),
            cache=_cache_of(selection.targets, choice.suites),
        )
    if selection.refused:
        raise selection.refused
    if selection.broken:
        raise UsageError(f"the suite cannot be read: {selection.broken[0]}", hint="mend or remove the file")
    if code == pytest.ExitCode.USAGE_ERROR and choice.expression:
        raise UsageError(f"-k {choice.expression!r} is not an expression", hint="-k 'triton and not canary'")
    if code not in (
        None,
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        last = words.getvalue().strip().rpartition("\n")[2] or "what pytest printed above says why"
        raise UsageError(f"the suite could not run: {last}")
    return code


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Standard output is for our document: what tests and their programs print there is dropped."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


@contextlib.contextmanager
def _importable(folders: Iterable[Path]) -> Iterator[None]:
    """Tests import what lies beside them, as they do where pytest runs by itself."""
    before = list(sys.path)
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        sys.path[:] = before


def _cache_of(targets: Iterable[Target], suites: Iterable[Path]) -> Path:
    """What failed is remembered for these tests of these hosts, and for no others that are called so."""
    hosts = [f"{target.name} {target.login.address} {target.login.port}" for target in targets]
    about = "\n".join([*sorted(hosts), *map(str, suites)])
    return CACHE / hashlib.sha256(about.encode(errors="surrogateescape")).hexdigest()[:16]


def _nothing(choice: Choice) -> UsageError:
    chosen = f"no check is selected by -k {choice.expression!r}" if choice.expression else ""
    return UsageError(
        chosen or "there is no check for these hosts",
        hint="-k looks at the names of files, checks, hosts and instances: -k 'triton and not gpu-02'",
    )


def _selected(selection: Selection, hosts: Iterable[str]) -> list[str]:
    """The hosts that a selected test is about, in the order of the inventory."""
    concerned = {subject.target.name for item in selection.items if (subject := subject_of(item))}
    return [name for name in hosts if name in concerned]


def _result(name: str, host: VerifyHost, running: Running) -> HostResult:
    connection = host.backend.connection
    return HostResult(
        name,
        checks=tuple(running.checks[name]),
        error=host.backend.memory.lost or running.errors.get(name),
        run=host.backend.memory.run,
        seconds=host.backend.memory.seconds,
        connects=connection.connects,
        execs=connection.execs,
        address=connection.login.address,
    )
