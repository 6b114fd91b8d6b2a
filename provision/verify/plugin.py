"""The pytest plugin that runs the suite: which host gets which test, rehearsals before, verdicts after."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import pytest
from _pytest.unittest import TestCaseFunction

from provision.causes.roles import fitting
from provision.errors import HostError, UsageError, visible
from provision.finding import Concern, Missing
from provision.role import Role
from provision.run.target import Target
from provision.verify.backend import Backend, Mode, VerifyHost
from provision.verify.fixtures import GIVEN, Given
from provision.verify.outcome import Check, naming
from provision.verify.rehearsal import Rehearsals
from provision.verify.sentences import said, verdict_of
from provision.verify.subjects import (
    Subject,
    name_of,
    role_of,
    subject_of,
    subjects_of,
    title_of,
)

PER_INSTANCE = frozenset({"instance", "instance_name"})
"""A test that asks for one of these is repeated for every instance."""

MARKS = (
    "hint(text): what to do if the check fails; {host} and {instance} are filled in",
    "containers: starts containers; left out of a quick look",
    "expects(setting): for hosts whose expect: gives it, such as gpus.memory; without a name, any",
    "live: asks its host itself, one exec a command, after all other tests",
)


class Selection:
    """Which tests there are, and for which hosts.

    :ivar items: the selected tests, in the order of hosts and roles; those that are live come last.
    :ivar broken: files of the suite that cannot be read, with the reason.
    :ivar refused: why the suite cannot run at all.
    """

    def __init__(self, targets: Sequence[Target], roles: Sequence[Role]) -> None:
        self.targets, self.roles = targets, roles
        self.items: list[pytest.Item] = []
        self.broken: list[str] = []
        self.refused: UsageError | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Make our marks known."""
        for mark in MARKS:
            config.addinivalue_line("markers", mark)

    def pytest_collection(self, session: pytest.Session) -> None:
        """Refuse tests that are to be spread over processes."""
        if session.config.pluginmanager.hasplugin("xdist"):
            self.refused = UsageError(
                "pytest-xdist cannot be used: what all tests ask is fetched together, in one process",
                hint="leave it out; --forks says how many hosts are asked at the same time",
            )
            raise pytest.exit.Exception(self.refused.message)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat every test for each host that has the module's role, or for each instance on it."""
        if hasattr(metafunc.module, "testinfra_hosts"):
            raise UsageError(
                f"{Path(str(metafunc.module.__file__)).name} has testinfra_hosts, and --hosts is what counts",
                hint="remove the line, or select by name: -k",
            )
        role = role_of(metafunc.module, self.roles)
        if role is None and PER_INSTANCE & set(metafunc.fixturenames):
            raise UsageError(
                f"{metafunc.function.__name__} asks for an instance, and its file names no role",
                hint='write ROLE = "triton" into the file',
            )
        each = bool(PER_INSTANCE & set(metafunc.fixturenames))
        targets = self.targets
        if mark := metafunc.definition.get_closest_marker("expects"):
            targets = [target for target in targets if target.expect and target.expect.names(*mark.args)]
        subjects = [subject for target in targets for subject in subjects_of(target, role, each=each)]
        metafunc.parametrize("subject", subjects, ids=[s.id for s in subjects], indirect=True, scope="module")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember files that cannot be imported."""
        if report.failed:
            reason = str(report.longrepr).strip().rpartition("\n")[2].removeprefix("E").strip()
            self.broken.append(f"{report.nodeid}: {reason}")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop what no selected host is concerned by, and put the tests in their order."""
        if case := next((item for item in items if isinstance(item, TestCaseFunction)), None):
            self.refused = UsageError(
                f"{case.nodeid}: a unittest.TestCase cannot be repeated for hosts",
                hint="write functions, or classes that derive from nothing",
            )
            raise pytest.exit.Exception(self.refused.message)
        places = {target.name: place for place, target in enumerate(self.targets)}

        def place(item: pytest.Item) -> tuple[bool, int, int]:
            subject = subject_of(item)
            assert subject is not None
            order = subject.role.order if subject.role else 1000
            return is_live(item), places[subject.target.name], order

        items[:] = sorted((item for item in items if subject_of(item)), key=place)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep what is selected."""
        self.items = list(session.items)


class Running:
    """The run of the selected tests.

    :param hosts: testinfra's host for each host.
    :param fetch: asks hosts all that is wanted of them, at the same time.
    :param on_done: is told when all tests of a host have run.
    :ivar checks: the verdicts by host.
    :ivar errors: why a host could not be asked, or not to the end.
    """

    def __init__(
        self,
        hosts: Mapping[str, VerifyHost],
        fetch: Callable[[Sequence[Backend]], None],
        on_done: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.hosts, self.on_done = hosts, on_done
        self.checks: dict[str, list[Check]] = {name: [] for name in hosts}
        self.errors: dict[str, HostError] = {}
        self.rehearsals = Rehearsals(self.backend_of, fetch)
        self._missing: dict[tuple[str, str], str] = {}
        self._names: dict[str, str] = {}
        self._item: pytest.Item | None = None
        self._last: set[pytest.Item] = set()

    def backend_of(self, item: pytest.Item) -> Backend | None:
        """The backend of the host that a test is about."""
        subject = subject_of(item)
        if subject is None:
            return None
        backend: Backend = self.hosts[subject.target.name].backend
        return backend

    def pytest_configure(self, config: pytest.Config) -> None:
        """Give the fixtures what they give out."""
        config.stash[GIVEN] = Given(self.hosts)

    # ── rehearsed, and run ───────────────────────────────────────────────────────────────────────────────

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Fetch what the tests ask before they run."""
        self._last = set({self.backend_of(item): item for item in session.items}.values())
        if not session.testsfailed and not session.config.option.collectonly:
            ahead = [
                item for item in session.items if not is_live(item) and not item.get_closest_marker("skip")
            ]
            self.rehearsals.run(ahead)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """The test asks from now on."""
        backend = self.backend_of(item)
        assert backend is not None
        self._names[item.nodeid] = name_of(item)
        backend.begin(item.nodeid, Mode.LIVE if is_live(item) else Mode.KNOWN)
        done = yield
        if item in self._last:
            self.on_done(backend.get_pytest_id())
        return done

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """This test is set up, in a rehearsal too."""
        self._item = item

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """What cleans up is never done ahead."""
        backend = self.backend_of(item)
        assert backend is not None
        backend.cleaning = True
        try:
            return (yield)
        finally:
            backend.cleaning = False

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """What a fixture of a wider scope runs itself is its own, not that of the test that came first."""
        backend = self.backend_of(self._item) if self._item else None
        if fixturedef.scope == "function" or backend is None:
            return (yield)
        with backend.as_asker(f"{request.node.nodeid}::{fixturedef.argname}"):
            return (yield)

    # ── what came out ────────────────────────────────────────────────────────────────────────────────────

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say findings in their own words instead of a traceback, and keep the verdict."""
        report = yield
        error = call.excinfo.value if call.excinfo else None
        subject, backend = subject_of(item), self.backend_of(item)
        assert subject is not None
        assert backend is not None
        message, hint = (
            said(error, backend.last, _hint_of(item, subject), backend.asked) if error else ("", None)
        )
        if report.failed and error is None:
            message = str(report.longrepr)  # a test that passes, and was expected to fail
        if (why := getattr(report, "wasxfail", None)) is not None and report.skipped:
            message, hint = f"expected to fail{f': {why}' if why else ''}", None
        message, hint = visible(message), fitting(hint and visible(hint), subject.target.roles)
        if message:
            hide = subject.target.login.secrets
            message, hint = hide(message), hint and hide(hint)
        told, advised = (text and naming(text, [subject.target.name]) for text in (message, hint))
        if isinstance(error, Concern):
            report.outcome, report.longrepr = "passed", None
            item.user_properties.append(("warning", told))
        elif isinstance(error, Missing) and (first := self._first(subject, error.base, item)):
            message, hint = f"for the same cause as {first!r}", None
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, message)
        elif report.failed and error is not None:
            report.longrepr = f"{told}\nhint: {advised}" if advised else told
        if isinstance(error, HostError):
            error.conceal(subject.target.login.secrets)
            self.errors.setdefault(subject.target.name, error)
        elif report.when == "call" or not report.passed:
            self.checks[subject.target.name].append(
                Check(
                    name=name_of(item),
                    role=subject.role.name if subject.role else "",
                    instance=subject.instance,
                    verdict=verdict_of(report, error),
                    message=message,
                    hint=hint,
                    seconds=report.duration,
                )
            )
        return report

    def _first(self, subject: Subject, base: str, item: pytest.Item) -> str | None:
        """The check that has already failed because of this; None if this is the first one."""
        title = title_of(item)
        first = self._missing.setdefault((subject.target.name, base), title)
        return None if first == title else first

    def alone(self) -> tuple[str, ...]:
        """The checks and fixtures that ran commands with an exec each, with their hosts and why."""
        return tuple(
            f"{self._names.get(asker) or 'fixture ' + asker.rpartition('::')[2]} on {name} ({why})"
            for name, host in self.hosts.items()
            for asker, why in host.backend.alone.items()
        )


def is_live(item: pytest.Item) -> bool:
    """Whether a test asks its host itself: by its mark, or as it reports parts of itself while it runs."""
    return item.get_closest_marker("live") is not None or "subtests" in getattr(item, "fixturenames", ())


def _hint_of(item: pytest.Item, subject: Subject) -> str | None:
    """The hint of a test's mark."""
    mark = item.get_closest_marker("hint")
    return str(mark.args[0]).replace("{instance}", subject.instance or "") if mark and mark.args else None
