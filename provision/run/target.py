"""A host that is worked on: its way in, and what is declared for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from provision.connection.login import Login
from provision.errors import RefusedError
from provision.expectation.differences import differences
from provision.expectation.settings import Expect
from provision.facts import PROBES, Facts
from provision.hardware import HARDWARE, hardware_of
from provision.plan.backups import KEPT, Backups
from provision.plan.declared import Declared, declare, left_to_others
from provision.probe import Output, Probe
from provision.resources.leftovers import with_leftovers
from provision.role import Role, Settings


@dataclass(frozen=True)
class Target:
    """A host with its way in and the settings of the roles that it has, checked before any connection.

    :ivar granted: names of the permissions that the command line gives.
    :ivar given: names of the roles that have settings for it, also of those that the command leaves out.
    :ivar left_out: settings of those that the command leaves out, as far as they can be read.
    :ivar removed: what is there of each role that is to be removed: nothing, and before that what the role
        itself says. Where it is not empty there are no settings.
    :ivar expect: what it was ordered with, where the inventory says so.
    """

    name: str
    login: Login
    settings: Mapping[Role, Settings]
    granted: tuple[str, ...] = ()
    backups: Backups = KEPT
    given: tuple[str, ...] = ()
    left_out: Mapping[Role, Settings] = field(default_factory=dict)
    removed: tuple[Declared, ...] = ()
    expect: Expect | None = None

    @property
    def questions(self) -> tuple[Probe, ...]:
        """Those behind its facts; and behind what it is made of, only where that is compared."""
        return (*PROBES, HARDWARE) if self.expect else PROBES

    @property
    def roles(self) -> frozenset[str]:
        """Names of all roles that the inventory gives it."""
        return frozenset((*self.given, *(role.name for role in self.settings)))

    def differences(self, facts: Facts, answers: Mapping[str, Output]) -> tuple[str, ...]:
        """How the host differs from what was ordered, where that is allowed.

        :raises RefusedError: where it differs and that is not allowed.
        """
        if self.expect is None:
            return ()
        found = tuple(differences(self.expect, facts, hardware_of(answers[HARDWARE.name])))
        if found and self.expect.differences == "refused":
            raise RefusedError(
                self.name,
                f"not what was ordered: {'; '.join(found)}",
                hint=f"inv facts --hosts {self.name} shows what is there;"
                " expect: {differences: allowed} lets it be changed as it is",
            )
        return tuple(f"not what was ordered: {text}" for text in found)

    def declared(self, facts: Facts) -> tuple[Declared, ...]:
        """All that is declared for the host; and of its roles nothing but that, as far as we wrote it.

        Last come the handlers of roles that the command leaves out.

        :raises RefusedError: as :func:`declare`.
        """
        if self.removed:
            return self.removed
        roles = tuple(role.name for role in self.settings)
        found = with_leftovers(declare(self.name, self.settings, facts), roles, self.given, self.name)
        return (*found, *left_to_others(self.name, self.left_out, facts, found))
