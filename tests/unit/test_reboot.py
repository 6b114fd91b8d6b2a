"""Reboots: their reasons, who would notice, and how they are avoided."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.probe import Output
from provision.resource import Change, Planned
from provision.resources.driver_says import Gpu
from provision.resources.reboot import REBOOT as NEEDED
from provision.resources.reboot import RebootPolicy
from provision.roles.driver.module import Module, ModuleState
from provision.roles.driver.reboot import USERS, BootState, Reboot, Users, users
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

POLICY = RebootPolicy("b001", NEEDED, causes=("packages:driver",))
REBOOT = Reboot(POLICY)
BOX = "ab" * 32
LISTED = f"""\
process 71 0::/system.slice/docker-{BOX}.scope tritonserver
process 72 0::/system.slice/docker-{BOX}.scope python3 my model.py
process 99 0::/user.slice/user-1000.slice nvtop
process 100 0::/system.slice/docker-{"cd" * 32}.scope gone
container {BOX} nvidia/tritonserver:24.07 triton-main
container {"ef" * 32} redis:7 cache
"""
FOUND = Users(
    (
        ("tritonserver", 71, "triton-main"),
        ("python3 my model.py", 72, "triton-main"),
        ("nvtop", 99, ""),
        ("gone", 100, "cdcdcdcdcdcd"),
    ),
    (),
    (("triton-main", "nvidia/tritonserver:24.07"), ("cache", "redis:7")),
)


def answer(text: str) -> Output:
    return Output(0, text.encode())


def test_users_of_the_gpus_are_told_with_their_containers() -> None:
    assert users(answer(LISTED)) == FOUND
    assert FOUND.names == "tritonserver, python3 my model.py, nvtop, gone"
    assert FOUND.impact()[0] == "tritonserver (pid 71) in container triton-main uses the GPUs and ends"
    assert FOUND.impact()[-1] == "container cache (redis:7) stops"


def test_containers_alone_do_not_use_the_gpus_and_a_module_on_top_does() -> None:
    assert users(answer(f"container {BOX} redis:7 cache\n")).names == ""
    assert users(answer("holder gdrdrv\n")).names == "module gdrdrv"
    assert users(answer("")) == Users()


@pytest.mark.parametrize("shell", SHELLS)
def test_processes_that_have_the_driver_s_libraries_are_found(shell: str, tmp_path: Path) -> None:
    """The script runs against a copy of /proc: one GPU process, the driver's daemon, one other process."""
    library = "7f00-7f10 r-xp 00000000 08:01 42 /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04\n"
    for pid, name, maps in ((7, "tritonserver", library), (8, "nvidia-persiste", library), (9, "sshd", "")):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text(f"{name}\n")
        (tmp_path / f"{pid}/maps").write_text(maps)
        (tmp_path / f"{pid}/cgroup").write_text(f"0::/system.slice/docker-{BOX}.scope\n")
    (tmp_path / "9/fd/3").symlink_to("/dev/null")
    script = script_of(USERS).replace("/proc/", f"{tmp_path}/").replace("-f3", f"-f{len(tmp_path.parts) + 1}")
    ran = subprocess.run(
        [shell, "-c", script.replace("command -v docker", "command -v no-docker")],
        capture_output=True,
        check=True,
    )
    assert users(Output(0, ran.stdout)).processes == (("tritonserver", 7, BOX[:12]),)

    (tmp_path / "9/fd/4").symlink_to("/dev/nvidiactl")
    ran = subprocess.run(
        [shell, "-c", script.replace("command -v docker", "command -v no-docker")],
        capture_output=True,
        check=True,
    )
    assert [name for name, _, _ in users(Output(0, ran.stdout)).processes] == ["tritonserver", "sshd"]


@pytest.mark.parametrize(
    ("ecc", "mig", "reason"),
    [
        (("Enabled", "Enabled"), ("Disabled", "Disabled"), ""),
        (("[N/A]", "[N/A]"), ("[N/A]", "[N/A]"), ""),
        (("Enabled", "Disabled"), ("Disabled", "Disabled"), "ECC of GPU 3 is enabled, disabled is pending"),
        (("Enabled", "Enabled"), ("Disabled", "Enabled"), "MIG of GPU 3 is disabled, enabled is pending"),
    ],
)
def test_pending_modes_are_reasons(ecc: tuple[str, str], mig: tuple[str, str], reason: str) -> None:
    change = REBOOT.change(BootState(gpus=(Gpu("3", *ecc, *mig),)), Planned())
    assert (change.reason if change else "") == reason


def planned(state: BootState) -> Change:
    change = REBOOT.change(state, Planned())
    assert change is not None
    return change


def test_nouveau_takes_a_reboot_where_something_uses_it_and_none_where_nothing_does() -> None:
    busy = REBOOT.refine(planned(BootState(nouveau=True)), answer(LISTED))
    assert (busy.action, busy.needs, busy.reboot, busy.causes) == ("reboot", NEEDED, 900, ())
    assert busy.impact == FOUND.impact()
    idle = REBOOT.refine(planned(BootState(nouveau=True)), answer(f"idle\n{LISTED}"))
    assert (idle.action, idle.needs, idle.reboot, idle.script) == ("unload", None, 0, "unload_nouveau")


def test_a_pending_mode_cannot_be_had_by_unloading() -> None:
    pending = BootState(nouveau=True, gpus=(Gpu("0", "Enabled", "Disabled", "Disabled", "Disabled"),))
    assert planned(pending).preview == USERS


def test_partitioned_gpus_are_shown() -> None:
    rows = (
        Gpu("0", "Enabled", "Enabled", "Enabled", "Enabled"),
        Gpu("1", "Enabled", "Enabled", "Disabled", "Disabled"),
    )
    assert REBOOT.notes(BootState(gpus=rows), Planned()) == ("MIG is on for GPU 0; left as it is",)
    assert REBOOT.notes(BootState(), Planned()) == ()


def test_settings_that_allow_reboots_need_no_other_permission() -> None:
    allowed = Reboot(RebootPolicy("b001", NEEDED, allowed=True, timeout=60))
    change = allowed.change(BootState(nouveau=True), Planned())
    assert change is not None
    assert (change.needs, change.reboot, change.varying) == (None, 60, "boot=b001")


MODULE = Module("nvidia", "580.159.04", ("nvidia-driver-cuda",), POLICY)


def test_a_module_in_use_takes_a_reboot_and_holds_back_what_makes_it_necessary() -> None:
    change = MODULE.change(ModuleState("570.211.01", "580.159.04"), Planned())
    assert change is not None
    assert (change.action, change.preview) == ("reload", USERS)
    busy = MODULE.refine(change, answer(LISTED))
    assert (busy.resource, busy.action, busy.needs, busy.causes) == (
        "module:nvidia",
        "reboot",
        NEEDED,
        ("packages:driver",),
    )
    assert busy.reason == (
        "570.211.01 is loaded, 580.159.04 is wanted, "
        "and tritonserver, python3 my model.py, nvtop, gone use it"
    )
    idle = MODULE.refine(change, answer("container a b c\n"))
    assert (idle.action, idle.script) == ("reload", "reload_module nvidia")
    assert idle.summary == "reload kernel module nvidia (nothing uses it, so no reboot is needed)"
