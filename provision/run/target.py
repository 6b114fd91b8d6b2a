"""A host that is worked on: its way in, and what is declared for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.connection.login import Login
from provision.facts import Facts
from provision.plan.backups import KEPT, Backups
from provision.plan.declared import Declared, declare
from provision.resources.leftovers import with_leftovers
from provision.role import Role, Settings


@dataclass(frozen=True)
class Target:
    """A host with its way in and the settings of the roles that it has, checked before any connection.

    :ivar granted: names of the permissions that the command line gives.
    :ivar given: names of the roles that have settings for it, also of those that the command leaves out.
    :ivar removed: what is there of each role that is to be removed: nothing, and before that what the role
        itself says. Where it is not empty there are no settings.
    """

    name: str
    login: Login
    settings: Mapping[Role, Settings]
    granted: tuple[str, ...] = ()
    backups: Backups = KEPT
    given: tuple[str, ...] = ()
    removed: tuple[Declared, ...] = ()

    def declared(self, facts: Facts) -> tuple[Declared, ...]:
        """All that is declared for the host; and of its roles nothing but that, as far as we wrote it.

        :raises RefusedError: as :func:`declare`.
        """
        if self.removed:
            return self.removed
        roles = tuple(role.name for role in self.settings)
        return with_leftovers(declare(self.name, self.settings, facts), roles, self.given, self.name)
