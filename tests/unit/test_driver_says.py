"""What the driver tells a plan: reboots, persistence mode, and whether instances could start again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from provision.errors import RefusedError
from provision.plan.declared import Declared
from provision.plan.plan import Plan, plan
from provision.probe import Output
from provision.resource import ABSENT, Handler, Planned
from provision.resources.driver_says import DriverSays, Gpu, driver_says
from provision.resources.reboot import REBOOT as NEEDED
from provision.resources.reboot import RebootPolicy
from provision.resources.service import Service
from provision.roles.driver.persistence import PersistenceMode
from provision.roles.driver.reboot import BootState, Reboot
from provision.roles.triton.driver_answers import DriverAnswers, OnGpus
from provision.roles.triton.role import ROLE
from tests.unit.examples import H100, settings_of

REBOOT = Reboot(RebootPolicy("b001", NEEDED, allowed=False, timeout=900))
LOG = "dmesg | grep -i -e nvrm"
UUID = "GPU-{0}0000000-1111-2222-3333-444444444444"
ROW = "{0}, Enabled, Enabled, Disabled, Disabled, {1}, " + UUID
DENIED = "timeout: failed to run command 'nvidia-smi': Permission denied"
NO_HANDLE = "Unable to determine the device handle for GPU1: 0000:02:00.0: Unknown Error"
HUNG = "nvidia-smi (process 7) has hung in the kernel, so no other is started"


def rows(*modes: str) -> str:
    return "".join(f"{ROW.format(at, mode)}\n" for at, mode in enumerate(modes))


def says(out: str, err: str = "") -> DriverSays:
    return driver_says(Output(0, out.encode(), err.encode()))


@pytest.mark.parametrize(
    ("out", "err", "fault", "hint"),
    [
        (f"{rows('Enabled')}exit 0\n", "", "", ""),
        ("exit 126\n", DENIED, f"nvidia-smi: exit 126: {DENIED}", "chmod 755 /usr/bin/nvidia-smi"),
        ("exit 124\n", "", "nvidia-smi: exit 124: it did not answer in time", LOG),
        ("exit 9\n", "", "nvidia-smi: exit 9: it printed nothing", LOG),
        (
            "Failed to initialize NVML: Unknown Error\nexit 255\n",
            "",
            "nvidia-smi: exit 255: Failed to initialize NVML: Unknown Error",
            LOG,
        ),
        ("exit 1\n", HUNG, f"nvidia-smi: exit 1: {HUNG}", "reboot the host"),
        ("No devices were found\nexit 0\n", "", "nvidia-smi: exit 0: No devices were found", "dmesg"),
        (
            f"{rows('Enabled')}{NO_HANDLE}\nexit 15\n",
            "",
            f"nvidia-smi: exit 15: {NO_HANDLE}",
            "reboot the host",
        ),
        ("", "", "its kernel module is not loaded", "modprobe nvidia"),
        ("nouveau\n", "", "its kernel module is not loaded", "modprobe nvidia"),
        ("\x1b[2J\nexit 3\n", "", r"nvidia-smi: exit 3: \x1b[2J", LOG),
    ],
)
def test_why_the_driver_does_not_answer(out: str, err: str, fault: str, hint: str) -> None:
    found = says(out, err)
    assert found.fault == fault
    assert hint in found.hint
    assert "nvidia-smi -L" not in found.hint


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", BootState()),
        ("nouveau\n", BootState(nouveau=True)),
        (f"{'X' * 200_000}\nnouveau\n", BootState(nouveau=True)),
        (f"{rows('Enabled')}exit 0\n", BootState(gpus=(Gpu(*ROW.format(0, "Enabled").split(", ")),))),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", BootState()),
    ],
)
def test_what_speaks_for_a_reboot_is_read(text: str, state: BootState) -> None:
    assert Reboot.states([REBOOT], Output(0, text.encode())) == {"reboot": state}


@pytest.mark.parametrize(
    ("modes", "reason"),
    [
        (("Enabled", "Enabled"), ""),
        (("[N/A]",), ""),
        (("Enabled", "Disabled", "Disabled"), "persistence mode is off for GPU 1, 2"),
    ],
)
def test_the_daemon_is_restarted_where_persistence_mode_is_off(modes: tuple[str, ...], reason: str) -> None:
    mode = PersistenceMode()
    state = mode.seen(says(f"{rows(*modes)}exit 0\n"))
    found = mode.change(state, Planned())
    assert (found.reason if found else "") == reason
    if found:
        assert found.summary == "restart nvidia-persistenced.service"
        service = Service("nvidia-persistenced.service").change(ABSENT, Planned())
        assert service is not None
        assert mode.change(state, Planned((service,))) is None


UNIT = "triton@main.service"
STOPPED = "stops"


def planned_of(says: DriverSays, *changes: str, selection: str = "all", role: str = "triton") -> Plan:
    """A plan with changes of these ids, and what answers for the GPUs of an instance."""
    handlers = [Declared(role, Handler(name, on=(), script="true")) for name in changes]
    answers = DriverAnswers((OnGpus(UNIT, selection, ("handler:stops",)),))
    states = {item.resource.id: True for item in handlers} | {answers.id: says}
    return plan("h", [*handlers, Declared("triton", answers)], states)


SILENT = says("exit 126\n", DENIED)
WHY = f"the NVIDIA driver does not answer (nvidia-smi: exit 126: {DENIED})"


def test_no_instance_is_stopped_that_could_not_start_again() -> None:
    with pytest.raises(RefusedError) as refused:
        planned_of(SILENT, STOPPED)
    assert refused.value.message == f"{UNIT} cannot start: {WHY}"
    assert refused.value.hint == "on the host: chmod 755 /usr/bin/nvidia-smi"


def test_what_stops_no_instance_is_planned_with_a_note() -> None:
    for changes in ((), ("other",)):
        assert planned_of(SILENT, *changes).notes == (f"{UNIT}: the next start fails: {WHY} ({SILENT.hint})",)


def test_a_plan_that_changes_the_driver_says_nothing_of_it() -> None:
    assert planned_of(SILENT, STOPPED, role="driver").notes == ()


@pytest.mark.parametrize(
    ("selection", "absent"),
    [
        ("all", ""),
        ("1", ""),
        (UUID.format(1), ""),
        ("0,2", "2"),
        (UUID.format(7), UUID.format(7)),
        ("MIG-5a6b", ""),
    ],
)
def test_a_gpu_that_the_driver_does_not_show_keeps_its_instance_from_being_stopped(
    selection: str, absent: str
) -> None:
    here = says(f"{rows('Enabled', 'Enabled')}exit 0\n")
    why = f"GPU {absent} is not among the GPUs of this host"
    notes = planned_of(here, selection=selection).notes
    if not absent:
        assert notes == ()
        assert planned_of(here, STOPPED, selection=selection).changes
        return
    assert notes == (f"{UNIT}: the next start fails: {why} (compare gpus: with nvidia-smi -L on the host)",)
    with pytest.raises(RefusedError, match=re.escape(why)):
        planned_of(here, STOPPED, selection=selection)


def test_all_that_restarts_an_instance_with_gpus_is_known() -> None:
    """Each resource of the role whose change restarts a unit that is up is named there."""
    declared = ROLE.resources(settings_of("triton"), H100)
    (answers,) = [one for one in declared if isinstance(one, DriverAnswers)]
    for one in answers.instances:
        ids = {name.removesuffix(":restart") for name in one.stopped_by}
        kinds = ("handler:", "command:", "image-of:")
        assert ids == {r.id for r in declared if r.id.startswith(kinds) and r.id.endswith(one.unit)}
    assert declared[-1] is answers


def test_an_instance_on_the_cpu_needs_no_driver() -> None:
    settings = settings_of("triton", instances={"cpu": {"image": "example.org/x:1", "gpus": "none"}})
    assert not [r for r in ROLE.resources(settings, replace(H100, gpus=())) if isinstance(r, DriverAnswers)]
