"""Power that fails in the middle of a run: a virtual machine is killed, its page cache with it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from lab import vm
from lab.execute import execute
from lab.lab import Lab
from lab.vm import HostVm
from tests.lab.cli import Answer, inv, start
from tests.lab.test_provision import host

pytestmark = [pytest.mark.lab, pytest.mark.campaign("power", only=True)]

NAME = "gpu-01"
ROLES = ("--hosts", NAME, "--roles", "toolkit,docker")
"""The stand-in of the driver loads no module into a real kernel."""

CUTS = 10

BROKEN = "dpkg --audit; find /etc /usr/local /var/lib -xdev -name '.provision.*'"
"""Prints packages that are half done, and what is left of files that were being written."""


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[HostVm]:
    """The host gpu-01 as a virtual machine."""
    if packages := vm.missing_programs():
        execute("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages)
    machine = HostVm.of(host(lab, NAME))
    machine.create()
    try:
        yield machine
    finally:
        machine.cut()
        host(lab, NAME).reset()


@pytest.fixture(scope="module")
def seconds(machine: HostVm) -> float:
    """How long a run takes that is not cut."""
    machine.boot()
    began = time.monotonic()
    answer = provision()
    assert answer.code == 0, str(answer)
    return time.monotonic() - began


def provision() -> Answer:
    return inv("provision", *ROLES, "--yes", "--json", timeout=1800)


@pytest.mark.parametrize("number", range(CUTS))
def test_the_next_run_converges(
    machine: HostVm, seconds: float, number: int, request: pytest.FixtureRequest
) -> None:
    """What was being done at the cut is printed for the campaign's table."""
    moment = random.Random(f"{request.config.getoption('--seed')} {number}").uniform(0.05, 0.95) * seconds
    machine.reset()
    machine.boot()
    process = start("provision", *ROLES, "--yes")
    time.sleep(moment)
    machine.cut()
    process.kill()
    _, err = process.communicate()
    machine.boot()
    half_done = machine.run(BROKEN)
    request.config.get_terminal_writer().line(
        f"cut {number} after {moment:.0f} of {seconds:.0f} s; {err.splitlines()[-1:]}; {half_done!r}"
    )
    answer = provision()
    assert answer.code == 0, f"{half_done}\n{answer}"
    assert machine.run(BROKEN) == ""
    for command in (("plan",), ("verify", "-k", "not cdi")):
        answer = inv(*command, *ROLES, timeout=900)
        assert answer.code == 0, str(answer)
