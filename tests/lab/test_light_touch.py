"""What a run with nothing to do costs the host itself."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from lab.host import LabHost
from lab.lab import Lab
from provision.connection import Connection
from provision.inventory import sources
from provision.roles import all_roles
from provision.run.fleet import targets
from provision.run.host import survey
from provision.run.target import Target
from tests.lab.cli import INVENTORY
from tests.lab.test_provision import converged, host, shell

__all__ = ["converged"]

pytestmark = pytest.mark.lab

NAME = "gpu-01"
MOST = 60
"""Processes and threads that such a run may start, the login and sudo among them."""

ROUNDS = 5

CLIENT = "/usr/local/bin/docker"
"""Comes before Docker's own client on the path of everything that runs on a host."""

CALLS = "/run/calls-of-docker"


@pytest.fixture
def target(converged: Lab, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A host with all roles that a server needs, and nothing to do."""
    monkeypatch.setenv("PROVISION_LAB", converged.layout.name)
    found, _ = targets(sources.load([INVENTORY]).select(NAME), all_roles())
    optional = {"host"}
    assert {role.name for role in found[0].settings} == {role.name for role in all_roles()} - optional
    return found[0]


@pytest.fixture
def counted(converged: Lab) -> Iterator[LabHost]:
    """The host, which counts the calls of the docker client."""
    machine = host(converged, NAME)
    shell(
        machine,
        f'rm -f {CALLS}; printf \'#!/bin/sh\\necho "$*" >>{CALLS}\\nexec /usr/bin/docker "$@"\\n\' >{CLIENT}'
        f" && chmod 755 {CLIENT}",
    )
    yield machine
    shell(machine, f"rm -f {CLIENT} {CALLS}")


def last_pid(machine: LabHost) -> int:
    """The number that the host gave to its newest process or thread, which is the one that looks."""
    return int(shell(machine, "read -r a b c d last </proc/loadavg; echo $last"))


def look(target: Target) -> None:
    """A run with nothing to do, from the login to the end of the plan."""
    with Connection(target.login) as connection:
        found = survey(connection, target, lambda *_: None)
        assert (connection.connects, connection.execs) == (1, 1)
    assert [change.summary for change in found.plan.changes] == []


def test_a_run_with_nothing_to_do_starts_few_processes(target: Target, converged: Lab) -> None:
    machine = host(converged, NAME)
    started = []
    for _ in range(ROUNDS):
        before = last_pid(machine)
        look(target)
        started.append(last_pid(machine) - before - 1)
    assert 20 < statistics.median(started) <= MOST, started


def test_a_run_with_nothing_to_do_calls_the_docker_client_once_at_most(
    target: Target, counted: LabHost
) -> None:
    shell(counted, "docker --version >/dev/null")
    assert shell(counted, f"cat {CALLS}") == "--version\n", "calls are counted"
    look(target)
    assert len(shell(counted, f"cat {CALLS}").splitlines()) <= 1 + 1


def test_a_run_with_nothing_to_do_leaves_nothing_in_run(target: Target, converged: Lab) -> None:
    machine = host(converged, NAME)
    listing = "find /run /tmp -xdev -not -path '/run/systemd/*' -not -path '/run/user/*' | sort"
    look(target)
    before = shell(machine, listing)
    look(target)
    assert shell(machine, listing) == before
