"""A virtual machine's folder, which tells whether the machine was made."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from lab import secure_vm
from lab.layout import Layout
from lab.secure_vm import SecureVm


def stopped(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["_make_image", "execute", "_fat"])
def test_a_machine_whose_making_was_stopped_is_not_there(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``lab.up`` takes one with a folder for made, and would boot it."""
    image = tmp_path / "made"
    image.mkdir()
    (image / "OVMF_VARS_4M.ms.fd").touch()
    monkeypatch.setattr(SecureVm, "cut", lambda _: None)
    monkeypatch.setattr(SecureVm, "_image", stopped if step == "_make_image" else lambda _: image)
    monkeypatch.setattr(secure_vm, "execute", lambda *_: None)
    if step != "_make_image":
        monkeypatch.setattr(secure_vm, step, stopped)
    machine = SecureVm(Layout("test"), "192.0.2.1", tmp_path / "vm-01", tmp_path)
    (tmp_path / "seed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        machine.create(tmp_path / "seed")
    assert not machine.folder.exists()
