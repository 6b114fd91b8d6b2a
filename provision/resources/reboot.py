"""Reboots: who allows them, and the change that makes one."""

from __future__ import annotations

from dataclasses import dataclass

from provision.probe import quote
from provision.resource import Change, Permission

REBOOT = Permission(
    "reboot", "reboot needed", "--reboot allows it for this run, driver.reboot: allowed for all"
)
"""Given by ``--reboot``, or by the settings of the role that asks for it."""


@dataclass(frozen=True)
class RebootPolicy:
    """When a host may be rebooted, and how.

    :ivar boot_id: of the boot in which the plan is made; a host that was booted since is not rebooted again.
    :ivar permission: what it takes where the settings do not allow it.
    :ivar allowed: whether the settings allow it.
    :ivar timeout: seconds within which the host must be back.
    :ivar causes: ids of resources whose changes make a reboot necessary; without permission they are not
        begun.
    """

    boot_id: str
    permission: Permission
    allowed: bool = False
    timeout: int = 900
    causes: tuple[str, ...] = ()

    def change(
        self, resource: str, reason: str, impact: tuple[str, ...] = (), *, causes: tuple[str, ...] = ()
    ) -> Change:
        """The reboot itself, as a change of ``resource``."""
        return Change(
            resource=resource,
            action="reboot",
            summary="reboot the host",
            reason=reason,
            varying=f"boot={quote(self.boot_id)}",
            done='booted_since "$boot"',
            script=f"reboot_soon {quote(reason)}",
            needs=None if self.allowed else self.permission,
            impact=impact,
            causes=causes,
            reboot=self.timeout,
        )
