"""Rehearsals: tests run silently to learn what they ask, so that it can be fetched for all of them at once.

A rehearsal goes through pytest's own hooks for setup, call and teardown, without their reports, so that
skips, xfail and fixtures of all scopes do what they always do. It ends at the first answer that is not known
yet. After all tests have been rehearsed, every host is asked what its tests want to know, and those tests are
rehearsed again, until none asks for more. Then pytest runs them as it always does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import pytest

from provision.verify.backend import Backend, Mode, Unknown
from provision.verify.batch import Question

ROUNDS = 25
"""Rounds after which tests that still ask for more are run without their answers."""

ACTS = frozenset(
    {
        *("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.exec"),
        *("socket.connect", "socket.getaddrinfo", "socket.sendto"),
    }
)
"""Audit events of what a test does beside asking its host; it is done once, when the test really runs."""

FIRST = tuple(
    Question(line)
    for line in (
        *("uname -s", "cat /etc/os-release", "uname -m", "test -d /run/systemd/system/"),
        *(f"command -v {name}" for name in ("command", "ss", "systemctl", "ip", "sysctl")),
    )
)
"""What testinfra's modules ask every host before anything else; fetched in the first round, it saves some."""


class Watch:
    """Notices in a rehearsal that a test waits, starts a program of this machine or opens a connection."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self._thread = threading.get_ident()
        sys.addaudithook(self._on_event)  # it cannot be removed, so it looks at `backend` first

    def _on_event(self, event: str, _: tuple[Any, ...]) -> None:
        if self.backend and event in ACTS and threading.get_ident() == self._thread:
            self.backend.stop("it uses this machine")

    @contextlib.contextmanager
    def over(self, backend: Backend) -> Iterator[None]:
        """Watch the rehearsal of a test against this backend."""
        sleep, main = time.sleep, self._thread

        def instead(seconds: float, /) -> None:
            if threading.get_ident() == main:
                backend.stop("it waits")
            sleep(seconds)

        # Before Python 3.13 sleeping is no audit event.
        time.sleep, self.backend = instead, backend  # type: ignore[assignment]
        try:
            yield
        finally:
            time.sleep, self.backend = sleep, None


class Rehearsals:
    """The rounds of one run.

    :ivar backend_of: the backend that a test asks; None for a test without a host.
    :ivar fetch: asks the hosts of these backends all that is wanted of them, at the same time.
    :ivar rounds: how many there were.
    """

    def __init__(
        self,
        backend_of: Callable[[pytest.Item], Backend | None],
        fetch: Callable[[Sequence[Backend]], None],
    ) -> None:
        self.backend_of, self.fetch = backend_of, fetch
        self.rounds = 0
        self._watch = Watch()

    def run(self, items: Iterable[pytest.Item]) -> None:
        """Rehearse tests and fetch what they ask until none asks for more."""
        pending = [item for item in items if self.backend_of(item)]
        backends = list(
            {id(backend): backend for item in pending if (backend := self.backend_of(item))}.values()
        )
        for item, backend in ((item, self.backend_of(item)) for item in pending):
            if backend and "host" in getattr(item, "fixturenames", ()):
                backend.memory.wanted |= dict.fromkeys(FIRST)
        while pending and self.rounds < ROUNDS:
            pairs = zip_longest(pending, pending[1:])
            pending = [item for item, following in pairs if self._wants_more(item, following)]
            asking = [backend for backend in backends if backend.memory.wanted]
            if not asking:
                return
            self.fetch(asking)
            self.rounds += 1

    def _wants_more(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        """Rehearse one test; whether an answer was missing that can be fetched."""
        backend = self.backend_of(item)
        assert backend is not None
        backend.begin(item.nodeid, Mode.REHEARSAL)
        _renew(item)
        steps, properties = _Steps(), len(item.user_properties)
        with self._watch.over(backend), _as_it_was(), warnings.catch_warnings(action="ignore"):
            if steps.take(lambda: item.ihook.pytest_runtest_setup(item=item)):
                steps.take(lambda: item.ihook.pytest_runtest_call(item=item))
            steps.take(lambda: item.ihook.pytest_runtest_teardown(item=item, nextitem=following))
        backend.end()
        del item.user_properties[properties:]
        _forget(item)
        return steps.unknown and item.nodeid not in backend.aloud


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """A test that changes the folder or the environment of this process does so when it runs."""
    folder, environment = os.getcwd(), dict(os.environ)  # noqa: PTH109  # what chdir takes back
    try:
        yield
    finally:
        os.chdir(folder)
        if environment != dict(os.environ):
            os.environ.clear()
            os.environ.update(environment)


class _Steps:
    """The steps of one rehearsal.

    :ivar unknown: whether one of them ended because an answer is not known yet.
    """

    unknown = False

    def take(self, step: Callable[[], object]) -> bool:
        """Whether a step went well. What goes wrong goes wrong again when the test runs, and is told then."""
        try:
            step()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # outcomes of pytest are no exceptions
            self.unknown = self.unknown or _holds(error, Unknown)
            return False
        return True


def _holds(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)


def _renew(item: pytest.Item) -> None:
    """Make a test ready to run once more, as pytest does for plugins that repeat tests."""
    if hasattr(item, "_request") and not item._request:
        item._initrequest()  # type: ignore[attr-defined]


def _forget(item: pytest.Item) -> None:
    """Let go of the fixtures of a test, as pytest does at its end."""
    if hasattr(item, "_request"):
        item._request = False
        item.funcargs = None  # type: ignore[attr-defined]
