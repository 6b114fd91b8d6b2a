"""systemd units that must be enabled and running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, Change, Missing, Planned, Resource

NOT_ENABLEABLE = ("static", "indirect", "generated", "alias", "enabled-runtime")
"""Unit file states in which systemctl enable has nothing to do (systemctl(1), is-enabled)."""

STARTS = ("start", "await")
"""Actions after which a unit is up that was not."""


@dataclass(frozen=True)
class UnitState:
    """The properties of a unit that matter here, in systemd's own words."""

    active: str
    sub: str
    enabled: str


@dataclass(frozen=True)
class Service(Resource[UnitState | Missing]):
    """A unit that is enabled and active. Starting waits until the unit says that it is up.

    :ivar timeout: seconds that a start may take, its own gates included.
    :ivar after: ids of resources whose changes may stop or disable it, as packages do that take the place of
        others; then it is looked at again.
    """

    unit: str
    timeout: int = 120
    after: tuple[str, ...] = ()
    kind: ClassVar[str] = "service"
    shell = ("shell/units.sh",)

    @property
    def id(self) -> str:
        return f"service:{self.unit}"

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return Service

    @classmethod
    def probe(cls, resources: Sequence[Service]) -> Probe:
        """One systemctl show for all units."""
        properties = "Id,LoadState,ActiveState,SubState,UnitFileState"
        script = f"systemctl show -p {properties} -- {words(*(r.unit for r in resources))}"
        return Probe("service", script, in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Service], answer: Output) -> Mapping[str, UnitState | Missing]:
        """State by id.

        :raises ValueError: if there is not one block of properties for each unit.
        """
        blocks = [block for block in answer.out.strip().split("\n\n") if block]
        if len(blocks) != len(resources):
            raise ValueError(f"{len(blocks)} answers for {len(resources)} units: {answer.err.strip()}")
        return {r.id: _unit_state(block) for r, block in zip(resources, blocks, strict=True)}

    def bare(self) -> Missing:
        return ABSENT

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:
        """Enable and start the unit where it is not, or may not be after what is planned.

        :raises Refusal: if somebody masked it.
        """
        if isinstance(state, Missing):
            return self._bring_up("start", f"enable and start {self.unit}", "the unit is not there yet")
        if state.enabled.startswith("masked"):
            raise Refusal(
                f"{self.unit} is masked on the host",
                hint=f"if it may run again: systemctl unmask {self.unit}",
            )
        enable = state.enabled != "enabled" and state.enabled not in NOT_ENABLEABLE
        start = state.active != "active"
        causes = planned.positions(self.after)
        if not enable and not start:
            if not causes:
                return None
            after = f"after {planned.resources(causes)}"
            return self._bring_up("keep", f"keep {self.unit} enabled and running", after)
        reasons = [f"it is {state.active} ({state.sub})"] * start
        reasons += [f"it is {state.enabled or 'not enabled'}"] * enable
        # It may have read its files before they change: a start that does not do the work of a handler.
        coming = state.active == "activating" and not state.sub.startswith("auto-restart")
        verbs = ["enable"] * enable + ["wait for" if coming else "start"] * start
        action = "await" if coming else "start" if start else "enable"
        return self._bring_up(action, f"{' and '.join(verbs)} {self.unit}", "; ".join(reasons))

    def _bring_up(self, action: str, summary: str, reason: str) -> Change:
        unit = quote(self.unit)
        return Change(
            resource=self.id,
            action=action,
            summary=summary,
            reason=reason,
            done=f"unit_is_up {unit}",
            script=f"enable_unit {unit} && start_unit {unit} {self.timeout}",
            after_reboot=action in STARTS,
            reloads_systemd=True,
        )


def _unit_state(block: str) -> UnitState | Missing:
    values = dict(line.partition("=")[::2] for line in block.splitlines())
    if values.get("LoadState") in ("not-found", None):
        return ABSENT
    return UnitState(
        active=values.get("ActiveState", ""),
        sub=values.get("SubState", ""),
        enabled=values.get("UnitFileState", ""),
    )
