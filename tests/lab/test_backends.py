"""Plain testinfra tests have the same outcomes over our connections and over testinfra's own backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.verify import BACKENDS, SUITE, ours, stock, write_ssh_config
from lab.lab import Lab
from provision.inventory import sources
from provision.run.ways_in import logins
from tests.lab.cli import INVENTORY, LAB
from tests.lab.test_provision import converged, host, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

__all__ = ["converged"]

NAME = "gpu-01"
"""A host whose sudo asks for no password: testinfra's backends cannot give one."""

FAULTS = (
    "systemctl stop docker.socket docker.service; systemctl mask docker.service",
    "chmod 600 /etc/docker/daemon.json",
    "mv /etc/os-release /etc/os-release.kept; cp /etc/os-release.kept /etc/os-release",
    "sysctl -q -w net.ipv4.ip_forward=0; chmod 700 /etc/docker",
)
MENDED = (
    "sysctl -q -w net.ipv4.ip_forward=1; chmod 755 /etc/docker",
    "mv /etc/os-release.kept /etc/os-release",
    "chmod 644 /etc/docker/daemon.json",
    "systemctl unmask docker.service; systemctl start docker.socket docker.service",
)
WORDS = {"pass": "PASSED", "fail": "FAILED", "skip": "SKIPPED"}


@pytest.fixture(params=["healthy", "broken"])
def state(request: pytest.FixtureRequest, converged: Lab) -> Iterator[str]:
    """A host as provisioning leaves it, and one with several faults."""
    machine = host(converged, NAME)
    if request.param == "broken":
        for line in FAULTS:
            shell(machine, line)
    yield request.param
    if request.param == "broken":
        for line in MENDED:
            shell(machine, line)


@pytest.mark.campaign("backends")
def test_outcomes_are_those_of_the_other_backends(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("PROVISION_LAB", LAB)
    config = write_ssh_config(tmp_path, logins(sources.load([INVENTORY]).select(NAME)))
    document = ours(NAME, SUITE, inventory=INVENTORY)
    checks = document["hosts"][NAME]["checks"]
    found = {check["name"]: WORDS[check["verdict"]] for check in checks}
    assert (state == "healthy") == (set(found.values()) == {"PASSED"})
    # Over ssh:// each command is a login, so only the campaign has time for it.
    for backend in BACKENDS if request.config.getoption("--campaign") else ("paramiko",):
        there = stock(backend, NAME, config)
        assert len(there) == len(found) > 50
        assert {in_words(name): word for name, word in there.items()} == found, backend


def test_rounds_and_execs_are_few(converged: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISION_LAB", LAB)
    document = ours("gpu-nodes", SUITE, inventory=INVENTORY)
    summary = document["summary"]
    assert summary["rounds"] <= 9
    names = [machine.name for machine in converged.hosts]
    assert summary["live"] == [f"writes and reads on {name} (it changes the host)" for name in names]
    for name in names:
        found = document["hosts"][name]
        assert found["connects"] == 1
        # That test asks some six times itself.
        assert found["execs"] <= summary["rounds"] + 8


def in_words(name: str) -> str:
    """A check's name from pytest's: ``test_file[ssh://gpu-01-/etc-1]`` is ``file [/etc-1]``."""
    function, _, rest = name.partition("[")
    own = rest.removesuffix("]").partition(NAME)[2].removeprefix("-")
    words = function.removeprefix("test_").replace("_", " ")
    return f"{words} [{own}]" if own else words
