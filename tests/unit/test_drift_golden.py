"""Hosts that were changed by hand: the plans that bring docker, the toolkit and Triton back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.errors import RefusedError
from provision.facts import Facts
from provision.plan import report
from provision.plan.declared import Declared
from provision.plan.plan import plan
from provision.resource import AnyResource
from provision.resources.file import FileState
from provision.resources.packages.deb import PackageState
from provision.resources.packages.rpm import Installed, RpmState
from provision.resources.service import UnitState
from provision.roles import all_roles
from provision.roles.docker.daemon_json import DaemonJsonState
from provision.roles.docker.engine import EngineState
from provision.roles.toolkit.cdi import CdiState, Spec
from tests.roles.test_role import compare
from tests.unit.examples import REPO, settings_of
from tests.unit.recordings import facts_of

GOLDEN = Path(__file__).parent.parent / "golden/drift"
SYSTEMS = ("debian-12", "ubuntu-24.04", "rocky-9")
OLD = ("1:570.1-1", "9999-1")
"""A version below and one above every declared one."""

FILE = FileState("file", "0600", "root", "root", b"# changed by hand\n")
DAEMON_JSON = FileState(
    "file", "0644", "root", "root", b'{"bip": "10.0.0.1/24", "log-driver": "json-file"}\n'
)
SPEC = Spec("/var/run/cdi/nvidia.yaml", frozenset({"all"}), frozenset({"/usr/lib/libcuda.so.570.1"}))


def debs(resource: Any) -> Mapping[str, PackageState]:
    return {
        package.name: PackageState(OLD[n % 2], "installed", n % 3 == 0)
        for n, package in enumerate(resource.packages)
    }


def rpms(resource: Any) -> RpmState:
    return RpmState(
        {
            p.name: (Installed("0", OLD[n % 2].rpartition(":")[2], "1"),)
            for n, p in enumerate(resource.packages)
        }
    )


DRIFT: Mapping[str, Callable[[Any], Any]] = {
    "cdi": lambda _: CdiState(driver="580.1.1", minors=frozenset({0}), at_boot=False, specs=(SPEC,)),
    "config-toml": lambda _: FILE,
    "daemon-json": lambda _: DaemonJsonState(DAEMON_JSON),
    "daemon-loaded": lambda _: ("runc", frozenset({"runc"})),
    "directory": lambda _: FileState("directory", "0700", "root", "root"),
    "docker-engine": lambda _: EngineState(("docker.io",), ("/usr/bin/dockerd",), runs=True),
    "docker-service": lambda _: UnitState("inactive", "dead", "disabled"),
    "file": lambda _: FILE,
    "gpus-in-containers": lambda _: ("abc", "def"),
    "image": lambda _: True,
    "no-other-units": lambda r: (f"{r.prefix}@old.service",),
    "packages": debs,
    "rpm-packages": rpms,
    "service": lambda _: UnitState("inactive", "dead", "disabled"),
}
"""The state of what was changed by hand, by kind; every other kind is as on a bare host."""


def drifted(resource: AnyResource) -> Any:
    state = DRIFT.get(resource.kind)
    return state(resource) if state else resource.bare()


def plans(role: str) -> str:
    """The plans of all systems, or why a host is refused."""
    text = ""
    for system in SYSTEMS:
        facts: Facts = facts_of(system)
        changes = {"source": "docker", "repo": REPO} if (role, facts.family) == ("docker", "rhel") else {}
        known = next(known for known in all_roles() if known.name == role)
        declared = [Declared(role, r) for r in known.resources(settings_of(role, **changes), facts)]
        try:
            found = plan(system, declared, {d.resource.id: drifted(d.resource) for d in declared})
        except RefusedError as refused:
            text += f"{refused} (hint: {refused.hint})\n\n"
        else:
            text += report.plans({system: found}, diff=True) + "\n"
    return text


@pytest.mark.parametrize("role", ["toolkit", "docker", "triton"])
def test_what_was_changed_by_hand_is_brought_back(role: str, update_golden: bool) -> None:
    compare(GOLDEN / f"{role}.txt", plans(role), update=update_golden)
