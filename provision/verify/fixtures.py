"""What a test of the suite gets: its host, what the host is, and what the inventory says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from provision.expectation.settings import Expect
from provision.facts import PROBES, Facts
from provision.hardware import HARDWARE, Hardware, hardware_of
from provision.role import Settings
from provision.run.host import facts_of
from provision.run.target import Target
from provision.verify.backend import Backend, VerifyHost
from provision.verify.subjects import Subject, instances_of


@dataclass
class Given:
    """What the fixtures give out; the run puts it into pytest's configuration.

    :ivar hosts: testinfra's host for each host.
    :ivar facts: what is known of hosts that cannot change.
    """

    hosts: Mapping[str, VerifyHost]
    facts: dict[str, Facts] = field(default_factory=dict)


GIVEN = pytest.StashKey[Given]()


@pytest.fixture(scope="module", autouse=True)
def subject(request: pytest.FixtureRequest) -> Subject:
    """What the test is about."""
    subject: Subject = request.param
    return subject


@pytest.fixture(scope="module")
def target(subject: Subject) -> Target:
    """The host with the settings of all its roles."""
    return subject.target


@pytest.fixture(scope="module")
def host(subject: Subject, pytestconfig: pytest.Config) -> VerifyHost:
    """testinfra's host."""
    return pytestconfig.stash[GIVEN].hosts[subject.target.name]


@pytest.fixture(scope="module")
def facts(subject: Subject, pytestconfig: pytest.Config) -> Facts:
    """What cannot change on the host."""
    name, given = subject.target.name, pytestconfig.stash[GIVEN]
    if name not in given.facts:
        backend: Backend = given.hosts[name].backend
        given.facts[name] = facts_of(name, backend.answers(PROBES))
    return given.facts[name]


@pytest.fixture(scope="module")
def hardware(host: VerifyHost) -> Hardware:
    """What the host is made of."""
    return hardware_of(host.backend.answers([HARDWARE])[HARDWARE.name])


@pytest.fixture(scope="module")
def expect(subject: Subject) -> Expect:
    """What the host was ordered with; of a test with the mark ``expects`` what that names is given."""
    return subject.target.expect or Expect()


@pytest.fixture(scope="module")
def settings(subject: Subject) -> Settings | None:
    """The settings of the module's role."""
    return subject.target.settings[subject.role] if subject.role else None


@pytest.fixture(scope="module")
def instance_name(subject: Subject) -> str:
    """Name of the instance that the test is repeated for."""
    assert subject.instance is not None
    return subject.instance


@pytest.fixture(scope="module")
def instance(subject: Subject) -> Settings:
    """Settings of the instance that the test is repeated for."""
    assert subject.role is not None
    assert subject.instance is not None
    return instances_of(subject.target, subject.role)[subject.instance]
