"""What a run with nothing to do costs the host itself: CPU time of all that is in a lab host's control group.

Daemons count too, such as sshd, systemd, journald and dockerd. Four ways take turns, in rounds:

* ``idle``: nothing, for as long as a survey takes: what the host uses by itself;
* ``login``: connect and leave;
* ``true``: connect and run ``true`` twice, through sudo where the inventory says so;
* ``survey``: what ``inv provision`` does with a converged host.

A busy machine gives larger numbers, so the least of the rounds is printed beside the median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from lab.cgroup import lab_group
from lab.lab import Lab
from provision.connection import Connection
from provision.inventory import sources
from provision.roles import all_roles
from provision.run.fleet import targets
from provision.run.host import survey
from provision.run.target import Target

ROUNDS = 20
SETTLE = 0.2
"""Seconds in which a host ends what a login began."""


def run(out: Callable[[str], None], lab: Lab, pattern: str = "gpu-01") -> int:
    """Measure on one host and print one line a way; 1 if it is not converged."""
    (target, *_), _ = targets(sources.load([sources.default_path()]).select(pattern), all_roles())
    group = lab_group(lab.layout.name).child(target.name)
    ways: dict[str, Callable[[Target], int]] = {
        "idle": _idle,
        "login": _login,
        "true": _true,
        "survey": _survey,
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            before = group.cpu_seconds()
            if pending := way(target):
                out(f"{pending} changes are pending; {target.name} is not converged")
                return 1
            time.sleep(SETTLE)
            spent[name].append((group.cpu_seconds() - before) * 1000)
    out(f"{target.name}, CPU of the host itself in {ROUNDS} rounds")
    for name, values in spent.items():
        out(f"{name:<7} median {statistics.median(values):6.1f} ms  least {min(values):6.1f} ms")
    return 0


def _idle(_: Target) -> int:
    time.sleep(SETTLE)
    return 0


def _login(target: Target) -> int:
    with Connection(target.login):
        return 0


def _true(target: Target) -> int:
    with Connection(target.login) as connection:
        for _ in range(2):
            assert connection.run("true", timeout=60).ok
    return 0


def _survey(target: Target) -> int:
    with Connection(target.login) as connection:
        return len(survey(connection, target, lambda *_: None).plan.changes)
