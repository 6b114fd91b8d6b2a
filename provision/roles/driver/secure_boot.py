"""Secure Boot: a kernel that trusts nobody's modules but those of keys that the firmware knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from provision.errors import Refusal
from provision.probe import Output, Probe
from provision.resource import Change, Planned, Single
from provision.resources.packages.sets import moves_of
from provision.shell import constant

DKMS = constant("driver/kernels.sh", "dkms_tree")
"""Where DKMS keeps its books and its key."""

Enrolment = Literal["enrolled", "requested", "refused", "unknown"]


@dataclass(frozen=True)
class SecureBootState:
    """What the kernel and the firmware say.

    :ivar enforced: whether the kernel refuses modules; a shim that was told not to validate turns that off.
    :ivar key: the certificate that belongs to the key with which DKMS signs; empty if it has none yet.
    :ivar enrolment: what mokutil says of it; ``unknown`` without mokutil.
    :ivar signer: who signed the module that is loaded; empty for none.
    :ivar loaded: whether the driver's module is loaded.
    """

    enforced: bool
    key: str = ""
    enrolment: Enrolment = "unknown"
    signer: str = ""
    loaded: bool = False


def _enrolment(said: str) -> Enrolment:
    """The meaning of mokutil's sentence.

    Its exit code is 1 for an enrolled key in version 0.6 and 0 in later ones, as it is for a mere request.
    """
    if re.search(r"is already (enrolled|in db|in the built-in trusted keyring)", said):
        return "enrolled"
    if "in the enrollment request" in said:
        return "requested"
    return "refused" if re.search(r"is not enrolled|is blocked", said) else "unknown"


@dataclass(frozen=True)
class SecureBoot(Single[SecureBootState]):
    """The kernel will load what DKMS builds. Only for hosts with Secure Boot whose modules DKMS builds.

    It stands behind the packages, since it refuses only what they would break.

    :ivar packages: names of the packages whose installation builds modules.
    :ivar advice: how the host comes to modules that somebody else has signed; empty where there are none.
    """

    packages: tuple[str, ...]
    advice: str = ""
    kind: ClassVar[str] = "secure-boot"

    def question(self) -> Probe:
        """Ask kernel and firmware; bounded, as variables of a firmware can be slow."""
        return Probe("secure-boot-keys", "secure_boot_keys", ("driver/secure_boot.sh",), in_place=True)

    def read(self, answer: Output) -> SecureBootState:
        told = dict(line.partition("=")[::2] for line in answer.out.splitlines())
        if "enforce" not in told or "key" not in told:
            raise ValueError(f"no word of what the kernel enforces: {answer.err.strip()}")
        forced, _, lockdown = told["enforce"].partition(" ")
        return SecureBootState(
            enforced=forced != "N" or "[none]" not in lockdown,
            key=told["key"],
            enrolment=_enrolment(told.get("said", "")),
            signer=told.get("loaded", ""),
            loaded="loaded" in told,
        )

    def bare(self) -> SecureBootState:
        """The kernel loads what it is given."""
        return SecureBootState(enforced=False)

    def change(self, state: SecureBootState, planned: Planned) -> Change | None:
        """Nothing can be changed from here: a key is enrolled by somebody at the console.

        :raises Refusal: if a driver would be built that the kernel does not load.
        """
        moves = planned.positions(moves_of(self.packages))
        trusted = state.enrolment == "enrolled" or (
            # It is loaded, so the kernel trusts who signed it, and nothing says that this was not DKMS.
            state.enrolment == "unknown" and state.loaded and bool(state.key and state.signer)
        )
        if not state.enforced or trusted or (state.loaded and not moves):
            return None
        raise Refusal(f"Secure Boot is on, and {_why(state)}", hint=self._hint(state))

    def notes(self, state: SecureBootState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """That Secure Boot asks for nothing, or what stands in the way of the next driver."""
        if not state.enforced:
            return ("Secure Boot is on, but the kernel loads unsigned modules: validation is off in shim",)
        if state.enrolment in ("enrolled", "unknown"):
            return ()
        return (f"Secure Boot: {_why(state)}",)

    def refused(self, state: SecureBootState) -> Refusal | None:
        """Why the kernel does not load the module that DKMS built, where mokutil tells it."""
        if not state.enforced or state.enrolment not in ("refused", "requested"):
            return None
        return Refusal(f"Secure Boot is on, and {_why(state)}", hint=self._hint(state))

    def _hint(self, state: SecureBootState) -> str:
        at_boot = "reboot and confirm on the console (Enroll MOK)"
        if state.enrolment == "requested":
            return f"{at_boot}, then run again"
        if state.enrolment == "unknown" and state.key:
            steps = f"install mokutil and see: mokutil --test-key {state.key}"
        elif state.key:
            steps = f"mokutil --import {state.key}, {at_boot}, then run again"
        else:
            steps = f"install dkms and mokutil, {MAKE_KEY}, {at_boot}, then run again"
        return f"{self.advice}; or {steps}" if self.advice else steps


MAKE_KEY = (
    "make a key (Ubuntu: update-secureboot-policy --new-key; else dkms generate_mok, or with dkms before 3.1:"
    " openssl req -new -x509 -nodes -days 36500 -subj '/CN=DKMS module signing key/' -newkey rsa:2048"
    f" -keyout {DKMS}/mok.key -outform DER -out {DKMS}/mok.pub), mokutil --import that file"
)
"""How DKMS comes to a key before its first build, where it would make one in the same way (dkms(8))."""


def _why(state: SecureBootState) -> str:
    if state.enrolment == "requested":
        return f"the enrolment of {state.key} waits for its confirmation: until then the driver does not load"
    if not state.key:
        return "DKMS has no key yet to sign the driver with: it would not load"
    if state.enrolment == "unknown":
        return f"nothing tells whether the firmware knows {state.key}, with which DKMS signs the driver"
    return f"the firmware does not know {state.key}, with which DKMS signs the driver: it would not load"
