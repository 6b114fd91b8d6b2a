"""The run that is under way on a host, and its end for whoever asks: between two steps, or at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from provision.connection import Connection
from provision.errors import HostError, ProbeError, UsageError
from provision.plan.script import GONE, LONGEST, Event, parse_event, run_id_of
from provision.probe import Probe, words
from provision.run.apply import PATIENCE, StoppedError, attach
from provision.run.asker import USER, require_root
from provision.run.gather import gather
from provision.shell import assembled, constant

STOP = "shell/stop.sh"

LEFT = int(constant(STOP, "processes_left"))
"""Exit code of the script that ends a run at once, where processes do not end."""

DESCRIBED = Probe("described-run", "describe_run", (STOP,))
"""Asks for the run that is under way, since when, and its step."""


@dataclass(frozen=True)
class Outcome:
    """What was found on a host, or became of its run.

    :ivar status: ``running`` or ``idle`` where nothing was to be stopped; else ``stopped``, ``unknown``, or
        ``over`` if the run had ended by itself.
    :ivar message: the same in a sentence.
    """

    status: Literal["running", "idle", "stopped", "over", "unknown"]
    message: str


@dataclass(frozen=True)
class Underway:
    """A run that is under way on a host, if any is.

    :ivar run: its id; "" where there is none.
    :ivar since: when it was started, in UTC by the host's clock.
    :ivar step: the number of the step that it last began; 0 before the first.
    :ivar resource: what that step is about.
    :ivar knows: whether the host knows the run that was asked for.
    """

    run: str = ""
    since: str = ""
    step: int = 0
    resource: str = ""
    knows: bool = False

    @property
    def text(self) -> str:
        """The run in a line."""
        step = f", step {self.step}: {self.resource}" if self.step else ""
        return f"run {self.run} since {self.since}{step}" if self.run else "no run is under way"

    @property
    def fields(self) -> dict[str, Any]:
        """The run in a document; null for what is not known."""
        return {name: value or None for name, value in asdict(self).items() if name != "knows"}

    def is_of(self, asked: str) -> bool:
        """Whether it is this run, or what goes on of it after a reboot or after the run of somebody else."""
        return bool(asked) and re.fullmatch(rf"{re.escape(asked)}(-\d{{1,2}})?", self.run) is not None

    def outcome(self, asked: str) -> Outcome:
        """What there is to say where nothing is stopped."""
        if not asked:
            return Outcome("running" if self.run else "idle", self.text)
        if self.knows:
            return Outcome("over", f"run {asked} is over")
        return Outcome("unknown", f"no run {asked} is known here; {self.text}")


def require_id(run: str) -> None:
    """Refuse what is not the id of a run.

    :raises UsageError: for anything but "".
    """
    try:
        run_id_of(run or "none")
    except ValueError as error:
        raise UsageError(str(error), hint="inv stop --hosts PATTERN shows what runs") from None


def underway(connection: Connection, asked: str = "") -> Underway:
    """Ask a host for the run that is under way.

    :param asked: the run that somebody asks for.
    :raises HostError: if the host cannot be asked, or its answer makes no sense.
    """
    known = Probe("known-run", words("knows_run", asked), (STOP,))
    answers = gather(connection, (DESCRIBED, known, USER))
    require_root(connection.login, answers.get(USER.name))
    said, knows = answers[DESCRIBED.name].out.strip(), answers[known.name].exit_code == 0
    if not said:
        return Underway(knows=knows)
    try:
        found = re.fullmatch(r"(\S+) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)( \d+ \S+)?", said, re.ASCII)
        if not found:
            raise ValueError(f"not a run: {said[:100]!r}")
        step = parse_event(f"start{found[3]}") if found[3] else Event("start")
        return Underway(run_id_of(found[1]), found[2], step.index + 1, step.resource, knows)
    except ValueError as error:
        raise ProbeError(connection.login.host, str(error)) from None


@dataclass(frozen=True)
class Stop:
    """The end of runs: before their next step, or at once.

    :ivar runs: the run of each host.
    :ivar who: asks for it; whoever follows a run is told.
    :ivar now: whether the step that runs is cut, unless it changes packages.
    :ivar on_event: receives the name of a host, and events of its run or lines about it.
    """

    runs: Mapping[str, str]
    who: str
    now: bool
    on_event: Callable[[str, Event | str], None]

    def on(self, connection: Connection) -> Outcome:
        """End the run of a host, and wait for its end.

        :raises HostError: if the host cannot be asked, or the run does not end.
        """
        host, shell = connection.login.host, assembled(STOP)
        run, hide = self.runs[host], connection.login.secrets
        asked = connection.run(f"{shell}{words('stop_before_step', run, self.who)}", timeout=60, what="stop")
        if asked.exit_code == GONE:
            return Outcome("over", f"run {run} is over")
        if asked.exit_code:
            raise HostError(
                host, f"run {run} could not be stopped: {asked.err.strip()}", hint="is /run full?"
            )
        if self.now:
            ended = connection.run(
                f"{shell}{words('stop_now', run)}",
                timeout=LONGEST + PATIENCE,
                on_line=lambda line: self.on_event(host, hide(line.decode("utf-8", "backslashreplace"))),
                what="stop --now",
            )
            if ended.exit_code:
                left = "some of its processes are left" if ended.exit_code == LEFT else ended.err.strip()
                hint = (
                    f"systemctl status provision-{run} on the host; what hangs in the kernel needs a reboot"
                )
                raise HostError(host, f"run {run} did not end: {left}", hint=hint)
        try:
            events = attach(connection, run, lambda event: self.on_event(host, event))
        except StoppedError as error:
            return Outcome("stopped", error.message)
        return Outcome("over", f"run {run} ended by itself: {events[-1].status}")


def document(
    found: Mapping[str, Underway], outcomes: Mapping[str, Outcome], errors: Mapping[str, HostError]
) -> dict[str, Any]:
    """The document of ``--json``."""
    hosts: dict[str, Any] = {
        name: {**asdict(one), **found[name].fields, "error": None} for name, one in outcomes.items()
    }
    for name, error in errors.items():
        hosts[name] = {"status": "failed", "error": {"message": error.message, "hint": error.hint}}
    return {"schema": 1, "hosts": hosts}


def exit_code(outcomes: Mapping[str, Outcome], errors: Mapping[str, HostError]) -> int:
    """1 if a host failed, or none knows the run."""
    return 1 if errors or {one.status for one in outcomes.values()} == {"unknown"} else 0
