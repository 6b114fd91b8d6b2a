"""The host itself: name, time, kernel, limits and journal are in force as declared."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from provision.errors import Refusal
from provision.facts import Facts
from provision.resource import AnyResource
from provision.resources.initramfs import Initramfs
from provision.resources.packages.installed import INSTALLED, installed
from provision.resources.service import Service
from provision.roles.host.files import HostsEntry, NoFile
from provision.roles.host.kernel import CommandLine, KernelModules, KernelReboot
from provision.roles.host.role import LEFT_ALONE, HostSettings, resources
from provision.roles.host.testinfra import AGAIN
from provision.roles.host.values import Governor, Hostname, Journal, KernelValues, Limits
from provision.shell import assembled
from provision.verify import fail, skip
from provision.verify.written import differing, require_settled

ROLE = "host"


@pytest.fixture
def declared(settings: HostSettings, facts: Facts) -> list[AnyResource]:
    """What the role declares for the host."""
    try:
        return resources(settings, facts)
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)


def test_files_are_as_provisioned(host: Host, declared: list[AnyResource]) -> None:
    if wrong := differing(host, declared):
        fail("; ".join(wrong), AGAIN)


def test_files_that_are_not_declared_are_gone(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, NoFile)


def test_no_run_ended_early(host: Host, declared: list[AnyResource]) -> None:
    require_settled(host, declared)


def test_name_is_set_and_found(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, Hostname, HostsEntry)


def test_chrony_is_the_time_daemon(host: Host, settings: HostSettings, declared: list[AnyResource]) -> None:
    if not settings.time:
        skip("host.time is not set")
    found = installed(host.run(f"{assembled(INSTALLED)}installed_packages chrony").stdout)
    if "chrony" not in found:
        fail("chrony is not installed", AGAIN)
    host.machine.require([r for r in declared if "governor" not in r.id], Service)


def test_upgrades_leave_docker_alone(host: Host, settings: HostSettings, facts: Facts) -> None:
    """What apt makes of all its files, ours among them; needrestart reads its own."""
    if facts.family == "rhel" or not settings.protect_docker:
        skip("nothing of it is declared")
    open_ = [name for name in LEFT_ALONE if name not in host.machine.left_alone]
    if open_:
        fail(f"unattended-upgrades may move {', '.join(f'{name}*' for name in open_)}", AGAIN)


def test_limits_are_in_force(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, Limits)


def test_journal_runs_with_its_size(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, Journal)


def test_modules_are_loaded(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, KernelModules)


def test_initramfs_has_options_of_modules(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, Initramfs)


def test_sysctl_values_are_loaded(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, KernelValues)


def test_cpu_governor_is_in_force(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require([r for r in declared if "chrony" not in r.id], Service, Governor)


def test_boot_loader_has_arguments(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, CommandLine)


def test_kernel_runs_as_configured(host: Host, declared: list[AnyResource]) -> None:
    host.machine.require(declared, KernelReboot)
