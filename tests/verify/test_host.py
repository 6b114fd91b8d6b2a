"""The host itself: name, time, kernel, limits and journal are in force as declared."""

from __future__ import annotations

from typing import TypeVar

import pytest
from testinfra.host import Host

from provision.errors import Refusal
from provision.facts import Facts
from provision.resource import AnyResource
from provision.resources.packages.installed import INSTALLED, installed
from provision.resources.service import Service
from provision.roles.host.files import MARK, HostsEntry, NoFile, NoService
from provision.roles.host.kernel import NO_LOADER, CommandLine, KernelModules, KernelReboot
from provision.roles.host.role import LEFT_ALONE, HostSettings, resources
from provision.roles.host.values import Governor, Hostname, Journal, KernelValues, Limits
from provision.shell import assembled
from provision.verify import fail, skip, warn
from provision.verify.written import differing, require_settled

ROLE = "host"
AGAIN = "inv provision --hosts {host} --roles host"
Kind = TypeVar("Kind", bound=AnyResource)


@pytest.fixture
def declared(settings: HostSettings, facts: Facts) -> list[AnyResource]:
    """What the role declares for the host."""
    try:
        return resources(settings, facts)
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)


def of(declared: list[AnyResource], kind: type[Kind]) -> list[Kind]:
    """The resources of a kind."""
    return [resource for resource in declared if isinstance(resource, kind)]


def require(wrong: list[str]) -> None:
    """Fail with what is wrong, if anything is."""
    if wrong:
        fail("; ".join(wrong), AGAIN)


def test_files_are_as_provisioned(host: Host, declared: list[AnyResource]) -> None:
    require(differing(host, declared))


def test_files_that_are_not_declared_are_gone(host: Host, declared: list[AnyResource]) -> None:
    left = [file.path for file in of(declared, NoFile) if host.machine.has_mark(file.path)]
    require([f"{path} is there, and the settings no longer name it" for path in left])


def test_no_run_ended_early(host: Host, declared: list[AnyResource]) -> None:
    require_settled(host, declared)


def test_name_is_set_and_found(host: Host, declared: list[AnyResource]) -> None:
    now = host.machine.name
    wrong = [f"it is called {now}, not {r.name}" for r in of(declared, Hostname) if r.name != now]
    for entry in of(declared, HostsEntry):
        if entry.name and not host.machine.finds(entry.name):
            wrong.append(f"{entry.name} is not in /etc/hosts")
        elif entry.name and entry.wanted(host.machine.hosts) != host.machine.hosts:
            wrong.append(f"the line of {entry.name} in /etc/hosts is not as it was written")
        elif not entry.name and MARK in host.machine.hosts:
            wrong.append("/etc/hosts has a line of ours, and the settings no longer name it")
    require(wrong)


def test_chrony_is_the_time_daemon(host: Host, settings: HostSettings, declared: list[AnyResource]) -> None:
    if not settings.time:
        skip("host.time is not set")
    if "chrony" not in installed(host.run(f"{assembled(INSTALLED)}installed_packages chrony").stdout):
        fail("chrony is not installed", AGAIN)
    wrong = []
    for service in of(declared, Service):
        state = [host.machine.unit(service.unit, about) for about in ("ActiveState", "UnitFileState")]
        if isinstance(service, NoService):
            said = " and ".join({"active", "enabled"} & set(state))
            wrong += [f"{service.unit} is {said} beside chrony"] if said else []
        elif "chrony" in service.unit and state != ["active", "enabled"]:
            wrong.append(f"{service.unit} is {', '.join(state)}")
    require(wrong)


def test_upgrades_leave_docker_alone(host: Host, settings: HostSettings, facts: Facts) -> None:
    """What apt makes of all its files, ours among them; needrestart reads its own."""
    if facts.family == "rhel" or not settings.protect_docker:
        skip("nothing of it is declared")
    open_ = [name for name in LEFT_ALONE if name not in host.machine.left_alone]
    require([f"unattended-upgrades may move {', '.join(f'{name}*' for name in open_)}"] if open_ else [])


def test_limits_are_in_force(host: Host, declared: list[AnyResource]) -> None:
    wanted = {name: value for r in of(declared, Limits) for name, value in r.values.items()}
    found = {name: host.machine.systemd(name) for name in wanted}
    require([f"{name} is {now}, not {wanted[name]}" for name, now in found.items() if now != wanted[name]])


def test_journal_runs_with_its_size(host: Host, declared: list[AnyResource]) -> None:
    late = [r.path for r in of(declared, Journal) if host.machine.is_older_than(r.path)]
    require([f"systemd-journald is older than {path}" for path in late])


def test_modules_are_loaded(host: Host, declared: list[AnyResource]) -> None:
    wanted = [name for r in of(declared, KernelModules) for name in r.wanted.load]
    require([f"module {name} is not loaded" for name in wanted if not host.machine.loads(name)])


def test_sysctl_values_are_loaded(host: Host, declared: list[AnyResource]) -> None:
    wrong = []
    for key, value in ((k, v) for r in of(declared, KernelValues) for k, v in r.values.items()):
        now = host.machine.sysctl(key)
        if now is None:
            fail(f"the kernel does not know the sysctl {key}", "take it out of host.sysctl")
        if now.split() != value.split():
            wrong.append(f"{key} is {now}, not {value}")
    require(wrong)


def test_cpu_governor_is_in_force(host: Host, declared: list[AnyResource]) -> None:
    for wanted in of(declared, Governor):
        now = host.machine.governors
        pairs = (("ActiveState", "active"), ("UnitFileState", "enabled"))
        states = [host.machine.unit(wanted.unit, about) for about, good in pairs]
        bad = [state for state, (_, good) in zip(states, pairs, strict=True) if state != good]
        wrong = [f"{wanted.unit}: it is {', '.join(bad)}"] if bad else []
        if now - {wanted.governor}:
            wrong.append(f"CPUs have {', '.join(sorted(now))}, not {wanted.governor}")
        require(wrong)
        if not now:
            warn(f"no cpufreq here: governor {wanted.governor} has no effect", "take it out of host.governor")


def test_boot_loader_has_arguments(host: Host, declared: list[AnyResource]) -> None:
    wanted = [argument for r in of(declared, CommandLine) for argument in r.wanted.arguments]
    entries = host.machine.entries
    if gone := [argument for argument in host.machine.given if argument not in wanted]:
        require([f"the boot loader has {' '.join(gone)}, which the settings no longer name"])
    if not wanted:
        return
    if entries is None:
        if missing := [argument for argument in wanted if argument not in host.machine.command_line]:
            why = f"{NO_LOADER}: {' '.join(missing)} cannot come into force here"
            warn(why, "take it out of the settings of this host")
        return
    lacks = [argument for argument in wanted if not all(argument in entry for entry in entries)]
    wrong = [f"an entry of the boot loader lacks {' '.join(lacks)}"] if lacks or not entries else []
    require(wrong + ["/boot/grub/grub.cfg is older than what it is made from"] * host.machine.is_stale)


def test_kernel_runs_as_configured(host: Host, declared: list[AnyResource]) -> None:
    for reboot in of(declared, KernelReboot):
        wanted, machine = reboot.wanted, host.machine
        now = machine.command_line if machine.entries is not None else wanted.arguments
        wrong = [
            f"{argument} is not in /proc/cmdline" for argument in wanted.arguments if argument not in now
        ]
        for path, (module, name, value) in wanted.parameters.items():
            has = machine.parameter(path)
            if has is not None and truth(has) != truth(value):
                wrong.append(f"module {module} is loaded with {name}={has}, not {value}")
        loaded = [name for name in wanted.blacklist if machine.loads(name)]
        require([*wrong, *(f"module {name} is blacklisted and loaded" for name in loaded)])


def truth(value: str) -> str:
    """A parameter as it can be compared: truth has several spellings."""
    return {"y": "1", "n": "0", "yes": "1", "no": "0", "on": "1", "off": "0"}.get(value.lower(), value)
