"""Kernel modules: read by a real sh, and what is planned."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.command import Output
from provision.errors import Refusal
from provision.resources.base import ABSENT, Missing, Planned
from provision.resources.module import Module
from tests.unit.sandbox import SHELLS

NVIDIA = Module("nvidia", version="580.159.04")


@pytest.mark.parametrize("shell", SHELLS)
def test_what_sysfs_shows_is_read(shell: str, tmp_path: Path) -> None:
    """The probe runs against a copy of /sys/module as a host with the driver has it."""
    modules = [NVIDIA, Module("nvidia-uvm"), Module("nouveau")]
    for folder, version in (("nvidia", "580.159.04\n"), ("nvidia_uvm", "")):
        (tmp_path / folder).mkdir()
        if version:
            (tmp_path / folder / "version").write_text(version)
    script = Module.probe(modules).script.replace("/sys/module/", f"{tmp_path}/")
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True)
    assert Module.states(modules, Output(0, ran.stdout)) == {
        "module:nvidia": "580.159.04",
        "module:nvidia-uvm": "",
        "module:nouveau": ABSENT,
    }


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
    [(NVIDIA, "580.159.04"), (NVIDIA, ""), (Module("nvidia"), "575.57.08"), (Module("x"), "")],
)
def test_a_module_that_is_right_needs_nothing(module: Module, state: str | Missing) -> None:
    assert module.change(state, Planned()) is None


def test_another_version_takes_a_reboot() -> None:
    with pytest.raises(Refusal, match=r"reboot needed: .*575\.57\.08 is loaded, 580\.159\.04 is wanted"):
        NVIDIA.change("575.57.08", Planned())
