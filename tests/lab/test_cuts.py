"""Runs that are cut anywhere: whatever is killed, one more run brings the host to where it was to be."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.conftest import cases
from tests.lab.cli import Answer, inv, start
from tests.lab.test_provision import provision, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

CUTS = 40
BARE = 0.2
"""How many of the runs start on a bare host; the others on one that lacks a part."""

PURGE = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --allow-change-held-packages purge"
SERVER = (
    "systemctl disable --quiet --now triton@main.service; systemctl daemon-reload;"
    " rm -rf /etc/systemd/system/triton@main.service /etc/triton /usr/local/lib/provision"
)
NEEDED = (
    f"{PURGE} 'nvidia-container-toolkit*' 'libnvidia-container*'; rm -f /etc/apt/sources.list.d/provision-*",
    f"{PURGE} 'linux-headers-*'; rm -f /etc/modprobe.d/provision-*",
    f"{PURGE} nvidia-kernel-open-dkms; rm -f /etc/apt/preferences.d/provision-*",
    f"{PURGE} docker.io containerd runc; rm -rf /etc/docker",
    "docker image rm --force $(docker image ls --quiet); rm -f /etc/docker/daemon.json",
    "rm -rf /etc/cdi /var/run/cdi/nvidia.yaml /usr/local/share/provision /srv/triton",
)
RUNS = "ls /run/provision | grep -v lock"
OUR_UNIT = "$(systemctl list-units --plain --no-legend 'provision-2*.service' | cut -d' ' -f1 | head -n 1)"
PROCESSES = f'unit={OUR_UNIT}; [ -n "$unit" ] && cat /sys/fs/cgroup/system.slice/$unit/cgroup.procs'
"""The run's shell first, then what it has started, the newest last."""

SESSIONS = "cat /sys/fs/cgroup/user.slice/user-*.slice/session-*.scope/cgroup.procs"
"""sshd's own for the connection, and what follows the run."""

LEFT = "find /etc /usr/local /var/lib/provision /root -xdev -name '.provision.*'"
"""What is left of files that were being written."""


def kill(machine: LabHost, listing: str, chosen: Callable[[list[str]], str]) -> bool:
    """Send SIGKILL to one of the processes that a command lists; whether there was one."""
    found = machine.run(["sh", "-c", listing]).stdout.split()
    return bool(found) and machine.run(["kill", "-KILL", chosen(found)]).returncode == 0


def cut_controller(machine: LabHost, process: subprocess.Popen[str], chance: random.Random) -> bool:
    os.kill(process.pid, signal.SIGKILL)
    return True


def cut_shell(machine: LabHost, process: subprocess.Popen[str], chance: random.Random) -> bool:
    return kill(machine, PROCESSES, lambda found: found[0])


def cut_child(machine: LabHost, process: subprocess.Popen[str], chance: random.Random) -> bool:
    return kill(machine, PROCESSES, lambda found: chance.choice(found[1:] or found))


def cut_unit(machine: LabHost, process: subprocess.Popen[str], chance: random.Random) -> bool:
    return machine.run(["sh", "-c", f'systemctl stop "{OUR_UNIT}"']).returncode == 0


def cut_connection(machine: LabHost, process: subprocess.Popen[str], chance: random.Random) -> bool:
    return kill(machine, SESSIONS, chance.choice)


def cut_power(machine: LabHost, process: subprocess.Popen[str], chance: random.Random) -> bool:
    machine.kill()
    machine.boot()
    return True


SECRET = "/run/provision/*/script /run/provision/*/docker-login"
"""What a run has on its host that may hold secrets, and that goes with it."""

KINDS = (cut_controller, cut_shell, cut_child, cut_unit, cut_connection, cut_power)
ALL = {f"{n:02d}-{kind.__name__}": kind for n, kind in zip(range(CUTS), itertools.cycle(KINDS), strict=False)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take all cuts in the campaign, and else one."""
    if "cut" in metafunc.fixturenames:
        metafunc.parametrize("cut", cases(metafunc.config, "cuts", ALL, 1))


def begun(machine: LabHost, steps: int, before: str) -> bool:
    """Whether a run that was not there before has begun so many steps."""
    runs = set(machine.run(["sh", "-c", RUNS]).stdout.split()) - set(before.split())
    events = "".join(machine.run(["cat", f"/run/provision/{run}/events"]).stdout for run in runs)
    return bool(runs) and f"\n{events}".count("\nstart ") >= steps


def harm(machine: LabHost, chance: random.Random, *, much: bool) -> None:
    """Take from a host the server and at random what it needs: one part, or some, or all of the host."""
    if chance.random() < BARE and much:
        machine.reset()
        return
    ready = provision(pattern=machine.name)
    assert ready.code == 0, str(ready)
    parts = chance.sample(NEEDED, chance.randint(1, len(NEEDED)))
    shell(machine, "; ".join([SERVER, *(parts if much else parts[:1])]))


def cut_somewhere(machine: LabHost, cut: str, chance: random.Random) -> str:
    """Provision a host, and cut that a moment after a step began. What was done, and what came out."""
    place, moment = chance.random(), chance.choice((0.0, chance.uniform(0, 1), chance.uniform(0, 8)))
    steps = len(inv("plan", "--hosts", machine.name, "--json").host(machine.name)["changes"])
    step = int(place * (steps + 1))
    before = machine.run(["sh", "-c", RUNS]).stdout
    process = start("provision", "--hosts", machine.name, "--yes")
    while process.poll() is None and not begun(machine, step, before):
        time.sleep(0.05)
    if process.poll() is None:
        time.sleep(moment)
    done = process.poll() is None and ALL[cut](machine, process, chance)
    out, err = process.communicate(timeout=600)
    answer = Answer(process.returncode, out, err)
    if ALL[cut] is cut_shell and done:
        assert shell(machine, f"sleep 2; ls -d {SECRET} 2>/dev/null || :") == ""
    assert "Traceback" not in out + err, str(answer)
    assert answer.code in (0, 1, -signal.SIGKILL), str(answer)
    *_, said = ["", *(line for line in out.splitlines() if line.startswith(f"{machine.name}: "))]
    nothing = "" if done else " (nothing to cut)"
    return f"step {step} of {steps} + {moment:.1f} s{nothing}: exit {answer.code}; {said[:150]}"


@pytest.mark.campaign("cuts")
def test_one_run_after_a_cut_converges(lab: Lab, cut: str, request: pytest.FixtureRequest) -> None:
    machine = lab.hosts[list(ALL).index(cut) // len(KINDS) % 2]
    chance = random.Random(f"{request.config.getoption('--seed')} {cut}")
    harm(machine, chance, much=bool(request.config.getoption("--campaign")))
    told = cut_somewhere(machine, cut, chance)
    again = provision(pattern=machine.name)
    assert again.code == 0, f"{told}\n{again}"
    request.node.user_properties.append(("cut", f"{told}; then {again.host(machine.name)['status']}"))
    plan = inv("plan", "--hosts", machine.name)
    assert plan.code == 0, f"{told}\n{plan}"
    verify = inv("verify", "--hosts", machine.name)
    assert verify.code == 0, f"{told}\n{verify}"
    assert shell(machine, LEFT) == "", told
