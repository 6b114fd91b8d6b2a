"""The pytest plugin that runs the suite: which host gets which test, evidence before, verdicts after."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from testinfra.host import Host

from provision.errors import HostError, UsageError
from provision.facts import Facts
from provision.probe import Probe
from provision.role import Role, Settings
from provision.roles import choose
from provision.run.host import Target
from provision.verify.backend import testinfra_host
from provision.verify.evidence import Answered, Ask, Evidence, Subject
from provision.verify.outcome import Check, Verdict
from provision.verify.verdict import Concern, Finding

PER_INSTANCE = frozenset({"instance", "instance_name"})
"""A test that asks for one of these is repeated for every instance."""

LONGEST = 300
"""Characters of an assertion that are shown."""


class Plugin:
    """One run of the suite.

    :ivar answered: what asking each host came to; filled when the tests are known, before the first one runs.
    :ivar checks: the verdicts by host.
    :ivar broken: files of the suite that cannot be read, with the reason.
    :ivar lost: hosts whose connection ended in the middle of a test.
    """

    def __init__(self, targets: Sequence[Target], ask: Ask, roles: Sequence[Role]) -> None:
        self.targets = targets
        self.roles = roles
        self.ask = ask
        self.answered: Mapping[str, Answered] = {}
        self.checks: dict[str, list[Check]] = {target.name: [] for target in targets}
        self.broken: list[str] = []
        self.lost: dict[str, HostError] = {}
        self.defect: Exception | None = None

    # ── which tests ──────────────────────────────────────────────────────────────────────────────────────

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat every test for each host that has the module's role, or for each instance on it."""
        role = role_of(metafunc.module, self.roles)
        each = bool(PER_INSTANCE & set(metafunc.fixturenames))
        subjects = [subject for target in self.targets for subject in subjects_of(target, role, each=each)]
        metafunc.parametrize("subject", subjects, ids=[s.id for s in subjects], indirect=True, scope="module")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember files that cannot be imported."""
        if report.failed:
            reason = str(report.longrepr).strip().rpartition("\n")[2].removeprefix("E").strip()
            self.broken.append(f"{report.nodeid}: {reason}")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop what no selected host is concerned by, and put the tests in the order of hosts and roles."""
        places = {target.name: place for place, target in enumerate(self.targets)}

        def place(item: pytest.Item) -> tuple[int, int]:
            subject = subject_of(item)
            assert subject is not None
            return places[subject.target.name], subject.role.order if subject.role else 1000

        items[:] = sorted((item for item in items if subject_of(item)), key=place)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Ask every host everything that its tests want to know, all hosts at the same time."""
        if self.broken or session.config.option.collectonly:
            return
        try:
            self.answered = self.ask(*questions(session.items))
        except UsageError as error:
            self.defect = error
            raise pytest.exit.Exception(error.message) from error

    # ── what a test gets ─────────────────────────────────────────────────────────────────────────────────

    @pytest.fixture(scope="module", autouse=True)
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        """What the test is about; a host that could not be asked fails here, with its one sentence."""
        subject: Subject = request.param
        error = self.answered[subject.target.name].error
        if error:
            raise error
        return subject

    @pytest.fixture(scope="module")
    def target(self, subject: Subject) -> Target:
        """The host with the settings of all its roles."""
        return subject.target

    @pytest.fixture(scope="module")
    def evidence(self, subject: Subject) -> Evidence:
        """The answers of the host to the probes."""
        evidence = self.answered[subject.target.name].evidence
        assert evidence is not None
        return evidence

    @pytest.fixture(scope="module")
    def facts(self, evidence: Evidence) -> Facts:
        """What cannot change on the host."""
        return evidence.facts

    @pytest.fixture(scope="module")
    def settings(self, subject: Subject) -> Settings | None:
        """The settings of the module's role."""
        return subject.target.settings[subject.role] if subject.role else None

    @pytest.fixture(scope="module")
    def instance_name(self, subject: Subject) -> str:
        """Name of the instance that the test is repeated for."""
        assert subject.instance is not None
        return subject.instance

    @pytest.fixture(scope="module")
    def instance(self, subject: Subject) -> Settings:
        """Settings of the instance that the test is repeated for."""
        assert subject.role is not None
        assert subject.instance is not None
        return instances_of(subject.target, subject.role)[subject.instance]

    @pytest.fixture(scope="module")
    def host(self, subject: Subject) -> Host:
        """testinfra's Host: every question to it is an exec, so what can be a probe should be one."""
        connection = self.answered[subject.target.name].connection
        assert connection is not None
        return testinfra_host(connection)

    # ── what came out ────────────────────────────────────────────────────────────────────────────────────

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say findings in their own words instead of a traceback, and keep the verdict."""
        report = yield
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, Concern):
            report.outcome, report.longrepr = "passed", None
            report.user_properties = [*report.user_properties, ("warning", error.message)]
        elif report.failed and error is not None:
            message, hint = said(error)
            report.longrepr = f"{message}\nhint: {hint}" if hint else message
        if report.when == "call" or not report.passed:
            self._keep(item, report, error)
        return report

    def _keep(self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> None:
        subject = subject_of(item)
        assert subject is not None
        host = subject.target.name
        if isinstance(error, HostError):
            if not self.answered[host].error:
                self.lost.setdefault(host, error)
            return
        message, hint = said(error) if error else ("", None)
        self.checks[host].append(
            Check(
                name=name_of(item),
                role=subject.role.name if subject.role else "",
                instance=subject.instance,
                verdict=_verdict(report, error),
                message=message,
                hint=hint,
                seconds=report.duration,
            )
        )


def role_of(module: ModuleType, roles: Sequence[Role]) -> Role | None:
    """The role that a test module is for.

    :raises UsageError: if its ``ROLE`` is no role.
    """
    name = getattr(module, "ROLE", None)
    return choose(roles, [name])[0] if name is not None else None


def subjects_of(target: Target, role: Role | None, *, each: bool) -> list[Subject]:
    """What a test is repeated for on one host."""
    if role is not None and role not in target.settings:
        return []
    if each:
        return [Subject(target, role, name) for name in instances_of(target, role)] if role else []
    return [Subject(target, role)]


def instances_of(target: Target, role: Role) -> Mapping[str, Settings]:
    """The instances in the settings of a role that are not null; none for a role that knows no instances."""
    found: Mapping[str, Settings | None] = getattr(target.settings[role], "instances", {})
    return {name: instance for name, instance in found.items() if instance}


def subject_of(item: pytest.Item) -> Subject | None:
    """What a collected test is about, or None if there is no host for it."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("subject") if callspec else None
    return found if isinstance(found, Subject) else None


def name_of(item: pytest.Item) -> str:
    """The name of a check: that of its function, in words."""
    return getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")


def questions(items: Iterable[pytest.Item]) -> tuple[dict[str, list[Probe]], frozenset[str]]:
    """The probes of the selected tests by host, each asked once, and the hosts with questions beyond them.

    :raises UsageError: if two modules have different probes of the same name.
    """
    asked: dict[str, dict[str, Probe]] = {}
    modules: set[tuple[str, str]] = set()
    more: set[str] = set()
    for item in items:
        subject = subject_of(item)
        if subject is None:
            continue
        host = subject.target.name
        asked.setdefault(host, {})
        if "host" in getattr(item, "fixturenames", ()):
            more.add(host)
        module: ModuleType = item.module  # type: ignore[attr-defined]  # every test function has one
        if (host, module.__name__) not in modules:
            modules.add((host, module.__name__))
            _add(asked[host], module, subject)
    return {host: list(probes.values()) for host, probes in asked.items()}, frozenset(more)


def _add(asked: dict[str, Probe], module: ModuleType, subject: Subject) -> None:
    probes: Callable[[Settings | None], Iterable[Probe]] = getattr(module, "probes", lambda _: ())
    for probe in probes(subject.target.settings[subject.role] if subject.role else None):
        if asked.setdefault(probe.name, probe) != probe:
            raise UsageError(
                f"{Path(str(module.__file__)).name}: another module has a different probe {probe.name!r}",
                hint="give the probe a name of its own",
            )


def said(error: BaseException) -> tuple[str, str | None]:
    """The sentence and the hint of whatever ended a test."""
    if isinstance(error, Finding | HostError):
        return error.message, error.hint
    if isinstance(error, pytest.skip.Exception):
        return str(error.msg), None
    first, *rest = str(error).strip().splitlines() or [""]
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    if isinstance(error, AssertionError) and first:
        if not first.startswith("assert "):
            return first, None
        # pytest explains a bare assert in the lines below it: where each value comes from.
        explained = ", ".join([first, *(line.strip(" +") for line in rest if line.strip(" +"))])
        return f"{explained[:LONGEST]} ({where})", None
    return (
        f"{type(error).__name__}: {first} ({where})",
        "the check itself is at fault, or met what it does not know",
    )


def _verdict(report: pytest.TestReport, error: BaseException | None) -> Verdict:
    if isinstance(error, Concern):
        return "warn"
    if report.skipped:
        return "skip"
    return "pass" if report.passed else "fail"
