"""A plan and a connection in, events out. The host carries the plan out; here it is only watched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from provision.causes.known_messages import hint_for
from provision.connection import Connection
from provision.connection.login import Login
from provision.errors import HostError, UnreachableError
from provision.plan.backups import KEPT, Backups
from provision.plan.plan import Plan
from provision.plan.script import (
    GONE,
    LONGEST,
    NOT_FOLLOWED,
    NOT_STARTED,
    SPOOL,
    Event,
    follow,
    launch,
    parse_event,
    run_id_of,
)
from provision.probe import Output

PATIENCE = 300.0
"""Seconds that a run is watched beyond the time in which its host ends it."""

RECONNECTS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds to wait before each attempt to watch on after a lost connection."""

GOOD = 30.0
"""Seconds after which a connection was a good one, though the run told nothing."""

MOST_EVENTS = 20_000
"""Events of a run. A step has two, and remarks while it waits."""


class BusyError(HostError):
    """Another run is under way on the host; nothing was changed by this one.

    :param run: its id; "" if that is not known.
    """

    def __init__(self, host: str, run: str, message: str = "") -> None:
        super().__init__(host, message or f"run {run or 'of another operator'} is under way on the host")
        self.run = run


class OvertakenError(BusyError):
    """Another run was started before this one had begun; it may be over."""


class StoppedError(HostError):
    """Somebody ended the run with ``inv stop``."""


class LostRunError(HostError):
    """The host was rebooted while a run was under way there."""


class _Spool:
    """The events of one run, however many connections it takes to read them."""

    def __init__(self, login: Login, steps: int, on_event: Callable[[Event], None]) -> None:
        self.host, self.secrets = login.host, login.secrets
        self.steps = steps
        self.on_event = on_event
        self.offset = 0
        self.told = 0
        self.events: list[Event] = []

    def line(self, line: bytes) -> None:
        text = line.decode("ascii", "backslashreplace")
        if text == "busy ":
            raise BusyError(self.host, "")
        try:
            if text.startswith("busy "):
                raise BusyError(self.host, run_id_of(text.removeprefix("busy ")))
            event = parse_event(text)
            event = replace(event, output=self.secrets(event.output))
            if event.index >= self.steps:
                raise ValueError(f"step {event.index} of {self.steps}")
            if len(self.events) >= MOST_EVENTS:
                raise ValueError(f"more than {MOST_EVENTS} events")
        except ValueError as error:
            message = f"what the host says of its run makes no sense: {error}"
            raise HostError(
                self.host, message, hint=f"see {SPOOL} on the host; the run may go on there"
            ) from None
        self.told += 1
        self.on_event(event)
        if event.kind != "out":  # which is not in the spool
            self.offset += len(line) + 1  # its newline is not in it
            self.events.append(event)

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].kind == "end"

    @property
    def place(self) -> str:
        """Where the run ended."""
        steps = [event for event in self.events if event.index >= 0]
        if not steps:
            return "before its first step"
        number = f"{steps[-1].index + 1}" + (f"/{self.steps}" if self.steps < MOST_EVENTS else "")
        return f"in step {number}, which was cut" if steps[-1].kind == "start" else f"after step {number}"


def apply(
    connection: Connection,
    plan: Plan,
    run: str,
    on_event: Callable[[Event], None],
    sleep: Callable[[float], None] = time.sleep,
    *,
    clock: Callable[[], float] = time.monotonic,
    backups: Backups = KEPT,
) -> list[Event]:
    """Start ``plan`` on the host as run ``run`` and follow it to its end.

    A lost connection is opened again, after a while, and the run followed on from where it was. Attempts
    count from the last connection that told something, or lasted.

    :raises BusyError: if another run is under way, or was started before this one began; nothing was changed.
    :raises StoppedError: if somebody ended the run.
    :raises UnreachableError: if the host cannot be reached any more; a run that was started may go on there.
    :raises LostRunError: if the host was rebooted meanwhile.
    :raises HostError: if the run ended without a result.
    """
    spool = _Spool(connection.login, len(plan.changes), on_event)
    events = _watch(connection, launch(plan, run, backups), run, spool, sleep, clock=clock)
    if events[-1].status == "overtaken":
        other = f"run {events[-1].output}" if events[-1].output else "another run"
        raise OvertakenError(
            spool.host, events[-1].output, f"run {run} did nothing: {other} was started since"
        )
    return events


def attach(
    connection: Connection,
    run: str,
    on_event: Callable[[Event], None],
    sleep: Callable[[float], None] = time.sleep,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> list[Event]:
    """Follow a run that somebody else started, from its first event to its end; raises as :func:`apply`."""
    spool = _Spool(connection.login, MOST_EVENTS, on_event)
    return _watch(connection, follow(run, 0), run, spool, sleep, clock=clock)


def _watch(
    connection: Connection,
    script: str,
    run: str,
    spool: _Spool,
    sleep: Callable[[float], None],
    *,
    clock: Callable[[], float],
) -> list[Event]:
    waits = iter(RECONNECTS)
    begun, until = connection.execs, clock() + LONGEST + PATIENCE
    while True:
        told, since = spool.told, clock()
        try:
            output = _follow(connection, script, run, spool, until - since)
        except UnreachableError as error:
            if spool.told > told or clock() - since > GOOD:
                waits = iter(RECONNECTS)
            wait = next(waits, None)
            if wait is None and connection.execs == begun:
                raise  # nothing was started
            if wait is None or clock() + wait >= until:
                raise UnreachableError(
                    error.host,
                    f"{error.message}; whether the run goes on there is not known",
                    hint="run the same command again: it attaches to the run, or finds it done",
                ) from error
            sleep(wait)
            connection.close()
        else:
            if spool.ended and spool.events[-1].status == "stopped":
                raise StoppedError(
                    spool.host,
                    f"run {run} was stopped by {spool.events[-1].output} {spool.place}",
                    hint="run again: what is left is planned anew",
                )
            if spool.ended:
                return spool.events
            raise _without_result(connection.login.host, run, output)
        if connection.execs > begun:  # otherwise the host has not seen the script
            script = follow(run, spool.offset)


def _follow(connection: Connection, script: str, run: str, spool: _Spool, timeout: float) -> Output:
    """Watch over one connection; to lose what follows on the host is to lose the connection."""
    output = connection.run(script, timeout=timeout, on_line=spool.line, what=f"run {run}")
    if output.exit_code == NOT_FOLLOWED and not spool.ended:
        raise UnreachableError(connection.login.host, f"what followed run {run} was killed")
    return output


def _without_result(host: str, run: str, output: Output) -> HostError:
    """Why a run that was watched did not tell its end."""
    said = output.err.strip()[-300:]
    if output.exit_code == GONE:
        return LostRunError(
            host,
            f"the host does not know run {run} any more: it was rebooted",
            hint="run again: the run continues where this one was cut",
        )
    if output.exit_code == NOT_STARTED:
        full = "No space left" in said
        hint = f"may root write in {SPOOL} on the host?"
        if full:
            hint = "see df -h /run on the host; the journal in it is cut by journalctl --vacuum-size=16M"
        elif "for another name" in said:
            hint = "two names of the inventory lead to this machine: look at their ansible_host"
        return HostError(
            host,
            f"run {run} was not started, nothing was changed: {f'no space in {SPOOL}' if full else said}",
            hint=hint,
        )
    code = f" (exit {output.exit_code})" if output.exit_code else ""
    return HostError(
        host,
        f"run {run} ended without a result{code}: {said}",
        hint=hint_for(said) or f"on the host: journalctl -u provision-{run}",
    )
