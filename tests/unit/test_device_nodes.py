"""Device nodes of the driver: which are missing, and how they are made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from provision.probe import Output
from provision.resource import UNKNOWN, Change, Missing, Planned
from provision.resources.file import File
from provision.roles.driver.device_nodes import DeviceNodes
from tests.unit.examples import declared, script_of, with_gpus
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

WANTED = DeviceNodes()
LOADED = Change("module:nvidia", "load", "", "", "")


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """A host whose driver is loaded and has found two GPUs, the second with minor number 3."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/proc/driver/nvidia/version", "NVRM version: …\n")
    for bus, minor in (("0000:18:00.0", 0), ("0000:2a:00.0", 3)):
        text = f"Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        made.write(f"/proc/driver/nvidia/gpus/{bus}/information", text)
    made.write("/proc/devices", "Character devices:\n  1 mem\n195 nvidia\n237 nvidia-uvm\n\nBlock devices:\n")
    (tmp_path / "dev").mkdir()
    return made


def node(root: FakeRoot, name: str, major: int, minor: int) -> None:
    try:
        os.mknod(root.folder / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    except PermissionError:
        pytest.skip("making device nodes takes root")


def asked(root: FakeRoot) -> tuple[str, ...] | Missing:
    return DeviceNodes.states([WANTED], root.sh(script_of(DeviceNodes.probe([WANTED]))))["device-nodes"]


def test_without_the_driver_nothing_can_be_said(root: FakeRoot) -> None:
    (root.folder / "proc/driver/nvidia/version").unlink()
    assert asked(root) is UNKNOWN


def test_all_are_missing(root: FakeRoot) -> None:
    assert asked(root) == ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia0", "nvidia3")


def test_all_are_there(root: FakeRoot) -> None:
    for name, major, minor in (
        ("nvidiactl", 195, 255),
        ("nvidia0", 195, 0),
        ("nvidia3", 195, 3),
        ("nvidia-uvm", 237, 0),
        ("nvidia-uvm-tools", 237, 1),
    ):
        node(root, name, major, minor)
    assert asked(root) == ()
    root.write("/proc/devices", "195 nvidia\n238 nvidia-uvm\n")
    assert asked(root) == ("nvidia-uvm",), "the module was loaded anew and has another number"
    root.write("/proc/devices", "Character devices:\n")
    assert asked(root) == ()


def test_a_file_is_no_node(root: FakeRoot) -> None:
    root.write("/dev/nvidiactl")
    assert "nvidiactl" in str(asked(root))


@pytest.mark.parametrize(
    ("state", "planned", "reason"),
    [
        ((), (), None),
        ((), (LOADED,), "after module:nvidia"),
        (("nvidia-uvm",), (LOADED,), "missing or out of date: /dev/nvidia-uvm"),
        (UNKNOWN, (LOADED,), "the driver is not loaded yet"),
    ],
)
def test_when_they_are_made(
    state: tuple[str, ...] | Missing, planned: tuple[Change, ...], reason: str | None
) -> None:
    change = WANTED.change(state, Planned(planned))
    assert (change.reason if change else None) == reason


def step(root: FakeRoot) -> Output:
    change = WANTED.change(UNKNOWN, Planned())
    assert change
    return root.words(f"do_0() {{\n{change.script}\n}}\ndone_0() {{\n{change.done}\n}}\n(do_0) && (done_0)")


def test_nvidia_modprobe_makes_them(root: FakeRoot) -> None:
    root.program("nvidia-modprobe")
    output = step(root)
    assert root.calls == ["nvidia-modprobe -u -c=0 -c=3"]
    assert "missing in /dev: nvidiactl nvidia-uvm nvidia-uvm-tools nvidia0 nvidia3" in output.err


def test_without_nvidia_modprobe_they_are_made_by_hand(root: FakeRoot) -> None:
    """With the numbers that the kernel tells; a node of another number is replaced."""
    node(root, "nvidia-uvm", 511, 0)
    root.program("modprobe")
    output = step(root)
    assert output.ok, output
    made = {path.name: path.stat().st_rdev for path in (root.folder / "dev").iterdir()}
    assert made == {
        "nvidiactl": os.makedev(195, 255),
        "nvidia0": os.makedev(195, 0),
        "nvidia3": os.makedev(195, 3),
        "nvidia-uvm": os.makedev(237, 0),
        "nvidia-uvm-tools": os.makedev(237, 1),
    }
    assert root.calls == ["modprobe -- nvidia-uvm"]


def test_the_unit_makes_all_of_them_at_boot() -> None:
    path = "/etc/systemd/system/provision-nvidia-nodes.service"
    facts = with_gpus("Hopper", "Hopper", "Hopper")
    unit = next(w.resource for w in declared(facts) if w.resource.id == f"file:{path}")
    assert isinstance(unit, File)
    text = unit.content.decode()
    assert "\nExecStart=/usr/bin/nvidia-modprobe -u -c=0 -c=1 -c=2\n" in text
    assert "\nBefore=docker.service" in text
