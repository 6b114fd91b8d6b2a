"""systemd units that must be enabled and running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, AWAIT, Change, Missing, Planned, Resource

NOT_ENABLEABLE = ("static", "indirect", "generated", "alias", "enabled-runtime")
"""Unit file states in which systemctl enable has nothing to do (systemctl(1), is-enabled)."""

UNREADABLE = ("bad-setting", "error")
"""Load states of units whose files systemd cannot take (org.freedesktop.systemd1(5), LoadState)."""

RELOAD = "handler:reload systemd"
"""Id of the handler by which roles make systemd read their unit files."""

STARTS = ("start", AWAIT)
"""Actions after which a unit is up that was not."""


@dataclass(frozen=True)
class UnitState:
    """The properties of a unit that matter here, in systemd's own words.

    :ivar fragment: where systemd has found its unit file.
    :ivar stale: whether its files are others now than those that systemd has read.
    """

    active: str
    sub: str
    enabled: str
    load: str = "loaded"
    fragment: str = ""
    stale: bool = False


@dataclass(frozen=True)
class Service(Resource[UnitState | Missing]):
    """A unit that is enabled and active. Starting waits until the unit says that it is up.

    :ivar timeout: seconds that a start may take, its own gates included.
    :ivar after: ids of resources whose changes may stop or disable it, as packages do that take the place of
        others; then it is looked at again.
    :ivar reads: ids of resources that a start of it reads: one that is under way has not read their changes.
    """

    unit: str
    timeout: int = 120
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
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
        properties = "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,NeedDaemonReload"
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

        :raises Refusal: if somebody masked it, or systemd cannot read its files and nothing mends them.
        """
        if isinstance(state, Missing):
            return self._bring_up("start", f"enable and start {self.unit}", "the unit is not there yet")
        rewritten, gone = planned.positions(self.reads), state.load == "not-found"
        if (state.load == "masked" or state.enabled.startswith("masked")) and not rewritten:
            raise masked(self.unit)
        if state.load in UNREADABLE and not rewritten:
            raise Refusal(
                f"systemd does not load {self.unit}: {state.load}",
                hint=f"on the host: systemctl status {self.unit}, which names the line",
            )
        if gone:
            reason = f"it is {state.active} ({state.sub}), and its unit file is gone"
            return self._bring_up("start", f"enable and restart {self.unit}", reason)
        enable = state.enabled != "enabled" and state.enabled not in NOT_ENABLEABLE
        start = state.active != "active"
        causes = planned.positions(self.after)
        if not enable and not start:
            if not causes:
                return self._reload() if state.stale and not planned.positions((RELOAD,)) else None
            after = f"after {planned.resources(causes)}"
            return self._bring_up("keep", f"keep {self.unit} enabled and running", after)
        reasons = [f"it is {state.active} ({state.sub})"] * start
        reasons += [f"it is {state.enabled or 'not enabled'}"] * enable
        coming = state.active == "activating" and not state.sub.startswith("auto-restart")
        verb = "restart" if coming and rewritten else "wait for" if coming else "start"
        verbs = ["enable"] * enable + [verb] * start
        action = AWAIT if verb == "wait for" else "start" if start else "enable"
        word = "restart_unit" if rewritten and start else "start_unit"
        return self._bring_up(action, f"{' and '.join(verbs)} {self.unit}", "; ".join(reasons), word)

    def _reload(self) -> Change:
        unit = quote(self.unit)
        return Change(
            resource=self.id,
            action="reload",
            summary=f"make systemd read the files of {self.unit} again",
            reason="they have changed since it read them",
            done=f'[ "$(systemctl show -p NeedDaemonReload --value -- {unit})" = no ]',
            script="systemctl daemon-reload",
            reloads_systemd=True,
        )

    def starting(self, word: str) -> str:
        """Sh text that starts or restarts it by ``start_unit`` or ``restart_unit``."""
        return words(word, self.unit, str(self.timeout))

    def _bring_up(self, action: str, summary: str, reason: str, word: str = "start_unit") -> Change:
        unit, done = quote(self.unit), words("unit_is_up", self.unit)
        if action == "start":
            # It may be up by itself meanwhile, with its old files.
            done += f" && {words('not_owed', f'restart-{self.unit}')}"
        if action in STARTS:
            # verify calls a unit faulty that systemd had to start again lately; a start of ours forgets that.
            done += f" && {words('counts_no_restarts', self.unit)}"
        return Change(
            resource=self.id,
            action=action,
            summary=summary,
            reason=reason,
            done=done,
            script=f"enable_unit {unit} && {self.starting(word)}",
            after_reboot=action in STARTS,
            reloads_systemd=True,
        )


def masked(unit: str) -> Refusal:
    """The refusal of a unit that somebody masked."""
    return Refusal(f"{unit} is masked on the host", hint=f"if it may run again: systemctl unmask {unit}")


def _unit_state(block: str) -> UnitState | Missing:
    values = dict(line.partition("=")[::2] for line in block.splitlines())
    load, active = values.get("LoadState"), values.get("ActiveState", "")
    if load is None or (load == "not-found" and active in ("inactive", "failed")):
        return ABSENT
    return UnitState(
        active=active,
        sub=values.get("SubState", ""),
        enabled=values.get("UnitFileState", ""),
        load=load,
        fragment=values.get("FragmentPath", ""),
        stale=values.get("NeedDaemonReload") == "yes",
    )
