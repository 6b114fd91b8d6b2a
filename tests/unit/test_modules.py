"""Kernel modules: read by a real sh, and what is planned."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from provision.probe import Output
from provision.resource import ABSENT, Change, Planned
from provision.roles.driver.module import Module, ModuleState
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

NVIDIA = Module("nvidia", "580.159.04", ("nvidia-driver-cuda",))


@pytest.mark.parametrize("shell", SHELLS)
def test_what_sysfs_shows_is_read(shell: str, tmp_path: Path) -> None:
    """The probe runs against a copy of /sys/module as a host with the driver has it."""
    (tmp_path / "bin").mkdir()
    modinfo = tmp_path / "bin/modinfo"
    modinfo.write_text('#!/bin/sh\n[ "$*" = "-F version nvidia" ] && echo 580.200.01\n')
    modinfo.chmod(0o755)
    modules = [NVIDIA, Module("nvidia-uvm"), Module("nouveau")]
    for folder, version in (("nvidia", "580.159.04\n"), ("nvidia_uvm", "")):
        (tmp_path / folder).mkdir()
        if version:
            (tmp_path / folder / "version").write_text(version)
    script = script_of(Module.probe(modules)).replace("/sys/module/", f"{tmp_path}/")
    path = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True, env=path)
    assert Module.states(modules, Output(0, ran.stdout)) == {
        "module:nvidia": ModuleState("580.159.04", "580.200.01"),
        "module:nvidia-uvm": ModuleState(""),
        "module:nouveau": ABSENT,
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_the_version_of_debians_module_is_read_from_its_file(shell: str, tmp_path: Path) -> None:
    """modinfo finds no module nvidia where the packages call it nvidia-current."""
    file = tmp_path / "lib/modules" / platform.release() / "updates/dkms/nvidia-current.ko"
    for made in (tmp_path / "bin", tmp_path / "sys/module/nvidia", file.parent):
        made.mkdir(parents=True)
    file.touch()
    (tmp_path / "sys/module/nvidia/version").write_text("535.261.03\n")
    modinfo = tmp_path / "bin/modinfo"
    modinfo.write_text(f'#!/bin/sh\n[ "$*" = "-F version {file}" ] && echo 535.309.01\n')
    modinfo.chmod(0o755)
    module = Module("nvidia", "535.*")
    script = script_of(Module.probe([module]))
    for folder in ("/sys/module/", "/lib/modules/"):
        script = script.replace(folder, f"{tmp_path}{folder}")
    path = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True, env=path)
    state = Module.states([module], Output(0, ran.stdout))[module.id]
    assert state == ModuleState("535.261.03", "535.309.01")


def test_an_answer_that_was_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="1 answers for 2 modules"):
        Module.states([NVIDIA, Module("b")], Output(0, b"absent\n"))


def test_a_module_that_is_not_loaded_is_loaded() -> None:
    change = Module("nvidia-uvm").change(ABSENT, Planned())
    assert change is not None
    assert (change.resource, change.action) == ("module:nvidia-uvm", "load")
    assert (change.script, change.done) == ("load_module nvidia-uvm", "[ -d /sys/module/nvidia_uvm ]")


@pytest.mark.parametrize(
    ("module", "state"),
    [
        (NVIDIA, ModuleState("580.159.04", "580.159.04")),
        (NVIDIA, ModuleState("580.159.04")),
        (NVIDIA, ModuleState("")),
        (Module("nvidia", "580.*"), ModuleState("580.95.05", "580.95.05")),
        (Module("nvidia"), ModuleState("575.57.08", "580.159.04")),
    ],
)
def test_a_module_that_is_right_needs_nothing(module: Module, state: ModuleState) -> None:
    assert module.change(state, Planned()) is None


UPGRADE = Change("packages:driver", "upgrade", "", "", "", signals=("package:nvidia-driver-cuda:upgrade",))


@pytest.mark.parametrize(
    ("module", "state", "planned", "reason"),
    [
        (NVIDIA, ModuleState("575.57.08"), Planned(), "575.57.08 is loaded, 580.159.04 is wanted"),
        (
            NVIDIA,
            ModuleState("580.159.04"),
            Planned((UPGRADE,)),
            "580.159.04 is loaded, and its packages change",
        ),
        (
            Module("nvidia", "580.*"),
            ModuleState("580.95.05", "580.159.04"),
            Planned(),
            "580.95.05 is loaded, 580.159.04 is installed",
        ),
    ],
)
def test_another_version_is_reloaded(
    module: Module, state: ModuleState, planned: Planned, reason: str
) -> None:
    change = module.change(state, planned)
    assert change is not None
    assert (change.action, change.reason) == ("reload", reason)
    assert change.script == "reload_module nvidia"
