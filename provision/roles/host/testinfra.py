"""testinfra's ``host.machine``: what is in force on a host, beside the files of role host."""

from __future__ import annotations

import re
from collections.abc import Sequence

from testinfra.modules.base import InstanceModule

from provision.errors import Refusal
from provision.finding import fail, warn
from provision.probe import Output
from provision.resource import AnyResource, Planned
from provision.shell import assembled

AGAIN = "inv provision --hosts {host} --roles host"


class Machine(InstanceModule):  # type: ignore[misc]  # testinfra has no type information
    """The host itself."""

    def require(self, declared: Sequence[AnyResource], *kinds: type[AnyResource]) -> None:
        """See that what is declared of these kinds is in force."""
        members = [resource for resource in declared if isinstance(resource, kinds)]
        wrong: list[str] = []
        notes: list[str] = []
        for asked in dict.fromkeys(member.asked_by() for member in members):
            own = [member for member in members if member.asked_by() is asked]
            probe = asked.probe(own)
            result = self.run(f"{assembled(*probe.shell)}{probe.script}")
            states = asked.states(own, Output(result.rc, result.stdout_bytes, result.stderr_bytes))
            for member in own:
                try:
                    change = member.change(states[member.id], Planned())
                except Refusal as refusal:
                    fail(refusal.message, refusal.hint)
                if change:
                    wrong.append(f"{member.id}: {change.reason}")
                notes += member.notes(states[member.id], Planned())
        if wrong:
            fail("; ".join(wrong), AGAIN)
        if notes:
            warn("; ".join(notes), "take it out of the settings of this host")

    @property
    def left_alone(self) -> list[str]:
        """The names that unattended-upgrades leaves alone, as regular expressions."""
        text = self.run("apt-config dump Unattended-Upgrade::Package-Blacklist").stdout
        return re.findall(r'^[^"]*:: "(.*)";$', text, re.MULTILINE)
