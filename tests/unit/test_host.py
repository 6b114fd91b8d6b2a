"""Role host: what its settings refuse, and what its kinds make of a host's answers."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from provision.errors import Refusal
from provision.probe import Output, Probe
from provision.resource import ABSENT, Planned
from provision.resources.file import FileState
from provision.resources.reboot import REBOOT, RebootPolicy
from provision.resources.service import UnitState
from provision.roles.host.files import MARK, HostsEntry, NoFile, NoService
from provision.roles.host.kernel import (
    CommandLine,
    KernelModules,
    KernelReboot,
    KernelState,
    OfKernel,
    Wanted,
    kernel_state,
    question,
)
from provision.roles.host.profiles import PROFILES
from provision.roles.host.role import GRUB, HostSettings, resources
from provision.roles.host.values import Governor, Hostname, Journal, KernelValues, Limits
from tests.unit.examples import H100, script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

NOTHING = Planned()
WANTED = Wanted(("iommu=pt",), ("ib_umad",), {"nvme_core": {"io_timeout": "60"}}, ("pcspkr",))
PARAMETER = "/sys/module/nvme_core/parameters/io_timeout"
LINE = frozenset({"root=/dev/vda1", "iommu=pt"})
RIGHT = KernelState(LINE, "grub", (LINE,), modules=frozenset({"ib_umad"}), parameters={PARAMETER: "60"})
POLICY = RebootPolicy("0a0a", REBOOT)


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    made = FakeRoot(tmp_path, request.param)
    made.write("/proc/cmdline", "root=/dev/vda1 quiet\n")
    made.write("/proc/sys/kernel/osrelease", "6.1.0-9-amd64\n")
    return made


def changes(**settings: Any) -> list[str]:
    found = resources(HostSettings(**settings), H100)
    return [c.resource for r in found if (c := r.change(r.bare(), NOTHING))]


def test_settings_that_name_nothing_only_keep_upgrades_from_docker() -> None:
    assert changes() == [
        "file:/etc/needrestart/conf.d/provision.conf",
        "file:/etc/apt/apt.conf.d/60provision-host",
    ]
    assert changes(protect_docker=False) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hostname": "a b"}, "should match"),
        ({"hostname": "-a"}, "should match"),
        ({"kernel_args": ['a="b']}, "should match"),
        ({"kernel_args": ["a=$(reboot)"]}, "should match"),
        ({"kernel_args": ["a b"]}, "should match"),
        ({"sysctl": {"vm/../../etc": 1}}, "should match"),
        ({"sysctl": {"vm.swappiness": "1\n2"}}, "should match"),
        ({"modules": {"load": ["a-b"], "blacklist": ["a_b"]}}, "in load and in blacklist"),
        ({"modules": {"options": {"a": {"b": "1\ninstall x y"}}}}, "should match"),
        ({"time": {"servers": []}}, "at least 1 item"),
        ({"time": {"servers": ["a\nb"]}}, "should match"),
        ({"governor": "a b"}, "should match"),
        ({"limits": {"nofile": -1}}, "greater than or equal to 0"),
        ({"profile": "h999"}, "'generic' or 'h100'"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        HostSettings(**settings)


def test_the_profile_comes_before_the_settings() -> None:
    found = HostSettings(profile="h100", kernel_args=["iommu=pt", "x=1"], governor="powersave")
    assert found.wanted.arguments == (*PROFILES["h100"].kernel_args, "x=1")
    assert found.cpu_governor == "powersave"


def test_the_kernel_is_read(root: FakeRoot) -> None:
    root.program("update-grub")
    root.write("/boot/grub/grub.cfg", "\tlinux /vmlinuz root=UUID=1 iommu=pt\n\tlinux /boot/memtest\n")
    root.write(PARAMETER, "30\n")
    root.write("/lib/modules/6.1.0-9-amd64/modules.builtin", "kernel/drivers/ib-umad.ko\n")
    found = kernel_state(root.sh(script_of(question(WANTED))))
    assert found.running == {"root=/dev/vda1", "quiet"}
    assert found.loader == "grub"
    assert [sorted(entry) for entry in found.entries] == [["/vmlinuz", "iommu=pt", "root=UUID=1"]]
    assert found.modules == {"ib_umad"}
    assert list(found.parameters.values()) == ["30"]


def test_entries_of_grubby_may_name_a_variable(root: FakeRoot) -> None:
    root.program("grubby")
    root.write("/boot/loader/entries/a.conf", "title a\noptions $kernelopts\n")
    root.write("/boot/grub2/grubenv", "kernelopts=root=/dev/vda1 iommu=pt\n")
    root.write("/var/lib/provision/kernel-args", "# Written by provision.\nours iommu=pt old=1\n")
    found = kernel_state(root.sh(script_of(question(WANTED))))
    assert found.not_configured(WANTED) == []
    change = CommandLine(WANTED).change(found, NOTHING)
    assert change
    assert change.script == "grubby_arguments old=1 iommu=pt"


def test_a_right_kernel_takes_nothing() -> None:
    kinds: list[OfKernel] = [CommandLine(WANTED, GRUB), KernelModules(WANTED), KernelReboot(WANTED, POLICY)]
    assert [kind.change(RIGHT, NOTHING) for kind in kinds] == [None] * 3


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(RIGHT, running=frozenset()), "iommu=pt is not in /proc/cmdline"),
        (replace(RIGHT, running=frozenset(), loader=""), ""),
        (replace(RIGHT, parameters={PARAMETER: "30"}), "loaded with io_timeout=30, 60 is wanted"),
        (replace(RIGHT, parameters={}), ""),
        (replace(RIGHT, modules=frozenset({"pcspkr"})), "pcspkr is blacklisted and loaded"),
    ],
)
def test_what_takes_a_reboot(state: KernelState, reason: str) -> None:
    change = KernelReboot(WANTED, POLICY).change(state, NOTHING)
    assert (change is None) == (not reason)
    if change:
        assert reason in change.reason
        assert change.reboot
        assert change.needs == REBOOT


def test_a_parameter_that_is_true_has_several_spellings() -> None:
    wanted = Wanted(options={"a": {"b": "1"}})
    assert not KernelState(parameters={"/sys/module/a/parameters/b": "Y"}).not_in_force(wanted)


def test_a_host_without_a_boot_loader_is_told() -> None:
    state = KernelState()
    assert CommandLine(WANTED, GRUB).change(state, NOTHING) is None
    assert CommandLine(WANTED, GRUB).notes(state, NOTHING) == (
        "the host has no boot loader that provision knows (update-grub, grubby):"
        " iommu=pt cannot come into force here",
    )


def test_a_sysctl_that_the_kernel_does_not_know_is_refused() -> None:
    values = KernelValues({"vm.swappiness": "1", "vm.nothing": "2"}, "/x")
    with pytest.raises(Refusal, match=r"does not know the sysctl vm\.nothing"):
        values.change(("60", None), NOTHING)


def test_blanks_of_kernel_values_do_not_count(root: FakeRoot) -> None:
    root.write("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n")
    values = KernelValues({"net.ipv4.tcp_rmem": "4096 131072 6291456"}, "/x")
    answer = root.sh(script_of(values.question()))
    state = values.read(replace(answer, stdout=answer.stdout.replace(str(root.folder).encode(), b"")))
    assert values.change(state, NOTHING) is None
    assert KernelValues({"net.ipv4.tcp_rmem": "1 2 3"}, "/x").change(state, NOTHING)


def test_numbers_of_the_kernel_are_read_whole() -> None:
    """The shell's own read gets no more than the first digit of what /proc/sys has."""
    values = KernelValues(
        {"kernel.pid_max": Path("/proc/sys/kernel/pid_max").read_text("utf-8").strip()}, "/x"
    )
    ran = subprocess.run(["sh", "-c", script_of(values.question())], capture_output=True, check=True)
    assert values.change(values.read(Output(0, ran.stdout)), NOTHING) is None


def test_values_that_are_in_force_take_nothing() -> None:
    assert Hostname("a").change("a", NOTHING) is None
    assert Limits({"DefaultLimitNOFILE": "9"}).change({"DefaultLimitNOFILE": "9"}, NOTHING) is None
    assert Limits({"DefaultLimitNOFILE": "9"}).change({"DefaultLimitNOFILE": "8"}, NOTHING)
    assert Journal("/x").change(False, NOTHING) is None
    assert Journal("/x").change(True, NOTHING)


def test_governors() -> None:
    wanted = Governor("performance", "x.service")
    assert wanted.change((), NOTHING) is None
    assert "no cpufreq" in wanted.notes((), NOTHING)[0]
    assert wanted.change((("performance", "performance"),), NOTHING) is None
    assert wanted.change((("powersave", "performance", "powersave"),), NOTHING)
    with pytest.raises(Refusal, match="no governor performance"):
        wanted.change((("schedutil", "schedutil"),), NOTHING)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_lines_of_the_hosts_file_that_are_not_ours_stay(text: str) -> None:
    ours = HostsEntry("gpu-01.example.org")
    once = ours.wanted(text)
    assert ours.wanted(once) == once
    kept = [line for line in text.splitlines() if not line.rstrip().endswith(MARK)]
    assert [line for line in HostsEntry().wanted(once).splitlines() if line] == [
        line for line in kept if line
    ]


def test_a_line_of_the_owner_is_enough() -> None:
    text = "10.0.0.5 gpu-01.example.org gpu-01\n"
    assert HostsEntry("gpu-01.example.org").wanted(text) == text


def test_a_file_of_somebody_else_stays() -> None:
    assert NoFile("/x").change(FileState("file", "0644", "root", "root", b"mine\n"), NOTHING) is None
    assert NoFile("/x").change(ABSENT, NOTHING) is None
    assert NoFile("/x").change(
        FileState("file", "0644", "root", "root", b"# Written by provision.\n"), NOTHING
    )


def test_a_second_time_daemon_is_stopped() -> None:
    assert NoService("ntp.service").change(UnitState("active", "running", "enabled"), NOTHING)
    assert NoService("ntp.service").change(UnitState("inactive", "dead", "disabled"), NOTHING) is None


def test_an_answer_without_a_command_line_is_no_answer() -> None:
    with pytest.raises(ValueError, match="/proc/cmdline"):
        kernel_state(Output(0))
    assert isinstance(question(Wanted()), Probe)
