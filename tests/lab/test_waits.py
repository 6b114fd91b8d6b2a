"""Faults that take patience: locks held for long or for ever, a host that does not come back. All at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.cli import Answer, lab_inventory, start, write_inventory
from tests.lab.test_faults import NOUVEAU, failed, locked, repair
from tests.lab.test_provision import host, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

LOCK = "/var/lib/dpkg/lock-frontend"


@dataclass(frozen=True)
class Waiting:
    """Runs that wait, by host, and when they were started."""

    runs: dict[str, subprocess.Popen[str]]
    began: float

    def end(self, name: str) -> Answer:
        """The answer of a run, when it ends."""
        out, err = self.runs[name].communicate(timeout=300)
        return Answer(self.runs[name].returncode, out, err)


@pytest.fixture(scope="module")
def source(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory in which reboots have half a minute."""
    document = lab_inventory()
    settings = document["_meta"]["hostvars"]["gpu-03"]["driver"]
    settings |= {"reboot": "allowed", "reboot_timeout": 30}
    return write_inventory(tmp_path_factory.mktemp("waits"), document)


@pytest.fixture(scope="module")
def waiting(lab: Lab, source: Path) -> Iterator[Waiting]:
    """gpu-01 waits 30 s for a lock, gpu-02 for ever, gpu-03 reboots and stays dark."""
    for machine in lab.hosts:
        machine.reset()
    dark = host(lab, "gpu-03")
    with ExitStack() as faults:
        for name, seconds in (("gpu-01", 30), ("gpu-02", 1000)):
            faults.enter_context(locked(host(lab, name), LOCK, seconds))
        shell(dark, NOUVEAU)
        dark.refuse_boot()
        faults.callback(dark.refuse_boot, False)
        chosen = {"gpu-01": "toolkit", "gpu-02": "toolkit", "gpu-03": "driver"}
        runs = {
            name: start(
                *("provision", "--yes", "--json", "--hosts", name, "--roles", roles), inventory=source
            )
            for name, roles in chosen.items()
        }
        yield Waiting(runs, time.monotonic())
        for run in runs.values():
            run.kill()
            run.communicate()


def test_a_lock_of_half_a_minute_is_waited_for(waiting: Waiting, source: Path) -> None:
    answer = waiting.end("gpu-01")
    assert answer.code == 0, str(answer)
    assert time.monotonic() - waiting.began >= 28
    repair("gpu-01", roles="toolkit", inventory=source)


def test_a_host_that_does_not_come_back_from_its_reboot_is_told(
    lab: Lab, waiting: Waiting, source: Path
) -> None:
    answer = waiting.end("gpu-03")
    assert answer.code == 1, str(answer)
    assert answer.host("gpu-03")["status"] == "unreachable"
    error = answer.host("gpu-03")["error"]
    assert "did not come back within 30 s" in error["message"]
    assert error["hint"]
    machine = host(lab, "gpu-03")
    machine.refuse_boot(False)
    machine.wait()
    repair("gpu-03", roles="driver", inventory=source)


def test_a_lock_that_is_never_released_is_told_with_its_holder(
    lab: Lab, waiting: Waiting, source: Path
) -> None:
    machine = host(lab, "gpu-02")
    holder = shell(machine, "systemctl show --property MainPID --value holder.service").strip()
    said, hint = failed(waiting.end("gpu-02"), "gpu-02")
    assert f"process {holder} (/usr/bin/perl /run/holder.pl" in said
    assert "did not end within 120 s" in said
    assert hint
    shell(machine, "systemctl stop holder.service")
    repair("gpu-02", roles="toolkit", inventory=source)
