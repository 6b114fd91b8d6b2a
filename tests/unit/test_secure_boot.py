"""Secure Boot: what kernel and firmware say, by a real sh, and when a driver is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Change, Planned
from provision.roles.driver.secure_boot import SecureBoot, SecureBootState
from tests.unit.examples import script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

WANTED = SecureBoot(("nvidia-kernel-open-dkms",))
INSTALL = Change(
    "packages:driver", "install", "", "", "", signals=("package:nvidia-kernel-open-dkms:install",)
)
OWN = "/var/lib/dkms/mok.pub"
UBUNTU = "/var/lib/shim-signed/mok/MOK.der"


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """A host with Secure Boot as Debian runs under it: locked down, signatures not forced by option."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/sys/module/module/parameters/sig_enforce", "N\n")
    made.write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    return made


def asked(root: FakeRoot) -> SecureBootState:
    answer = root.sh(script_of(SecureBoot.probe([WANTED])))
    state = SecureBoot.states([WANTED], answer)["secure-boot"]
    return replace(state, key=state.key.removeprefix(str(root.folder)))


# --- what is there --------------------------------------------------------------------------------


def test_a_host_without_keys_and_driver(root: FakeRoot) -> None:
    root.program("mokutil")
    assert asked(root) == SecureBootState(enforced=True)
    assert root.calls == []


@pytest.mark.parametrize(
    ("forced", "lockdown", "enforced"),
    [
        ("N", "none [integrity] confidentiality", True),
        ("N", "none integrity [confidentiality]", True),
        ("Y", "[none] integrity confidentiality", True),
        ("N", "[none] integrity confidentiality", False),
        ("N", None, True),
        (None, "[none] integrity confidentiality", True),
    ],
)
def test_what_the_kernel_enforces(
    root: FakeRoot, forced: str | None, lockdown: str | None, enforced: bool
) -> None:
    """Only a kernel that says of both that they are off loads what nobody signed."""
    for path, text in (
        ("/sys/module/module/parameters/sig_enforce", forced),
        ("/sys/kernel/security/lockdown", lockdown),
    ):
        root.write(path, f"{text}\n") if text else (root.folder / path.lstrip("/")).unlink()
    assert asked(root).enforced == enforced


@pytest.mark.parametrize(
    ("said", "enrolment"),
    [
        (f"{OWN} is already enrolled", "enrolled"),
        (f"{OWN} is already in db", "enrolled"),
        (f"{OWN} is already in the built-in trusted keyring", "enrolled"),
        (f"{OWN} is already in the enrollment request", "requested"),
        (f"{OWN} is not enrolled", "refused"),
        (f"{OWN} is blocked in MokListXRT", "refused"),
        ("EFI variables are not supported on this system", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_mokutil_says(root: FakeRoot, said: str, enrolment: str) -> None:
    root.write(OWN)
    root.program("mokutil", f"echo '{said}' >&2")
    found = asked(root)
    assert (found.key, found.enrolment) == (OWN, enrolment)
    assert root.calls == [f"mokutil --test-key {root.folder}{OWN}"]


@pytest.mark.parametrize(
    ("files", "configured", "key"),
    [
        ([OWN], "", OWN),
        ([UBUNTU, OWN], "", UBUNTU),
        ([OWN], '# mok_certificate=/no\nmok_certificate="/root/own key.der"\n', "/root/own key.der"),
        ([], "mok_certificate=/root/key.der\n", "/root/key.der"),
    ],
)
def test_which_key_dkms_takes(root: FakeRoot, files: list[str], configured: str, key: str) -> None:
    for file in files:
        root.write(file)
    root.write("/etc/dkms/framework.conf", configured)
    root.program("mokutil", "echo it is not enrolled; exit 1")
    assert asked(root).key == key


def test_who_signed_what_is_loaded(root: FakeRoot) -> None:
    root.write("/sys/module/nvidia/version", "580.159.04\n")
    root.program("modinfo", "echo DKMS module signing key")
    assert asked(root) == SecureBootState(True, signer="DKMS module signing key", loaded=True)
    root.program("modinfo", "exit 1")
    assert asked(root) == SecureBootState(True, loaded=True)


def test_half_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is mounted"):
        WANTED.read(Output(0, b"enforce=? ?\n", b"nothing is mounted\n"))


# --- what is decided ------------------------------------------------------------------------------

ENROLLED = SecureBootState(True, OWN, "enrolled")
UNKNOWN_KEY = SecureBootState(True, OWN, "refused")
LOADED = SecureBootState(True, OWN, "unknown", "DKMS module signing key", loaded=True)


@pytest.mark.parametrize(
    ("state", "refusal", "hint"),
    [
        (ENROLLED, "", ""),
        (SecureBootState(False), "", ""),
        (LOADED, "", ""),
        (SecureBootState(True), "DKMS has no key yet", "install dkms and mokutil, make a key"),
        (
            SecureBootState(True, OWN, "refused"),
            f"the firmware does not know {OWN}, with which DKMS signs the driver: it would not load",
            f"mokutil --import {OWN}, reboot and confirm on the console (Enroll MOK), then run again",
        ),
        (
            SecureBootState(True, OWN, "requested"),
            f"the enrolment of {OWN} waits for its confirmation",
            "reboot and confirm on the console (Enroll MOK), then run again",
        ),
        (
            SecureBootState(True, OWN, "unknown"),
            f"nothing tells whether the firmware knows {OWN}",
            f"install mokutil and see: mokutil --test-key {OWN}",
        ),
        # That Canonical's module is loaded tells nothing of what DKMS would build in its place.
        (
            SecureBootState(True, OWN, "refused", "Canonical Ltd. Kernel Module Signing", loaded=True),
            "the firmware does not know",
            "mokutil --import",
        ),
    ],
)
def test_a_driver_that_would_not_load_is_refused(state: SecureBootState, refusal: str, hint: str) -> None:
    planned = Planned((INSTALL,))
    if not refusal:
        assert WANTED.change(state, planned) is None
        return
    with pytest.raises(Refusal) as caught:
        WANTED.change(state, planned)
    assert caught.value.message.startswith(f"Secure Boot is on, and {refusal}")
    assert hint in str(caught.value.hint)


def test_signed_packages_come_first_in_the_hint() -> None:
    wanted = replace(WANTED, advice="source: archive has signed modules")
    with pytest.raises(Refusal) as caught:
        wanted.change(UNKNOWN_KEY, Planned())
    assert str(caught.value.hint).startswith(
        f"source: archive has signed modules; or mokutil --import {OWN}, "
    )


def test_a_driver_that_is_loaded_and_stays_is_left_alone() -> None:
    """But the operator hears of it."""
    state = replace(UNKNOWN_KEY, loaded=True, signer="somebody else")
    assert WANTED.change(state, Planned()) is None
    assert WANTED.notes(state, Planned()) == (
        f"Secure Boot: the firmware does not know {OWN}, with which DKMS signs the driver: it would not load",
    )
    with pytest.raises(Refusal):
        WANTED.change(state, Planned((INSTALL,)))


@pytest.mark.parametrize(
    ("state", "note"),
    [(ENROLLED, ""), (LOADED, ""), (SecureBootState(False), "validation is off in shim")],
)
def test_notes(state: SecureBootState, note: str) -> None:
    assert note in "".join(WANTED.notes(state, Planned()))
