"""Unloading nouveau: only while nothing uses it, and never by force."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.causes.known_messages import hint_for
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """A host that has nouveau loaded without users; modprobe takes it away."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/sys/module/nouveau/refcnt", "0\n")
    made.write("/proc/fb", "0 EFI VGA\n")
    made.program("modprobe", "rm -r /sys/module/nouveau")
    return made


def test_an_idle_nouveau_is_unloaded(root: FakeRoot) -> None:
    output = root.words("unload_nouveau && [ ! -d /sys/module/nouveau ]")
    assert output.ok, output
    assert root.calls == ["modprobe -r -- nouveau"]
    assert root.words("unload_nouveau").ok, "it is gone already"


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("/sys/module/nouveau/refcnt", "3\n", "nouveau is loaded and has 3 users"),
        ("/proc/fb", "0 nouveaudrmfb\n", "nouveau is loaded and drives the console"),
        ("/proc/fb", "0 EFI VGA\n1 nouveau\n", "nouveau is loaded and drives the console"),
    ],
)
def test_a_nouveau_in_use_stays(root: FakeRoot, path: str, text: str, said: str) -> None:
    root.write(path, text)
    output = root.words("unload_nouveau")
    assert (output.exit_code, output.err) == (1, f"reboot needed: {said}\n")
    assert root.calls == []
    assert "reboot the host" in str(hint_for(output.err))


def test_a_module_that_does_not_go_takes_a_reboot(root: FakeRoot) -> None:
    root.program("modprobe", "echo modprobe: FATAL: Module nouveau is in use. >&2; exit 1")
    output = root.words("unload_nouveau")
    assert "reboot needed: nouveau is loaded and cannot be unloaded" in output.err
    assert (root.folder / "sys/module/nouveau").exists()
