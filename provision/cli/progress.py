"""What the hosts of a command are doing: a live view on a terminal, a bounded number of lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

from rich.console import Console
from rich.live import Live
from rich.text import Text

from provision.cli.terminal import named
from provision.errors import visible
from provision.plan.report import counted
from provision.plan.result import Doing, Status
from provision.plan.script import Event

FEW = 4
"""Up to so many hosts, every step that ends has a line of its own."""

HEARTBEAT = 30.0
"""Seconds between two lines about all hosts where there is no terminal."""

ROWS = 12
"""Running hosts that the live view shows, the slowest first."""

ENDS = get_args(Status)
"""How the work on a host ends."""

IDLE = ("waiting", "planned")
"""What a host is between its phases."""


@dataclass
class _Host:
    """What is known of one host.

    :ivar phase: one of :data:`IDLE`, a word for what is being done, or one of :data:`ENDS`.
    :ivar step: what the running step is about, and its number among ``total`` steps.
    :ivar said: the last line that the step printed.
    :ivar began: when the phase or the step began, by the clock of the view.
    :ivar told: the end that has its line.
    """

    phase: str = "waiting"
    step: str = ""
    number: int = 0
    total: int = 0
    said: str = ""
    began: float = 0.0
    told: str = ""

    @property
    def running(self) -> bool:
        return self.phase not in IDLE and self.phase not in ENDS

    @property
    def doing(self) -> str:
        """``7/25 packages:driver``, or the phase where no step is running."""
        return f"{self.place} {self.step}" if self.step else self.phase

    @property
    def place(self) -> str:
        """``7/25``; the number alone where the plan is not ours."""
        return f"{self.number}/{self.total}" if self.total else str(self.number)


@dataclass
class Progress:
    """Takes events of hosts from any thread, and shows them on ``console`` between enter and exit.

    :ivar clock: seconds; only differences count.
    """

    names: Iterable[str]
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, markup=False))
    clock: Callable[[], float] = time.monotonic
    _hosts: dict[str, _Host] = field(init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _live: Live | None = field(default=None, init=False)
    _open: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._hosts = {name: _Host() for name in self.names}
        self._width = max(map(len, self._hosts), default=0)
        self._began = self._told = self.clock()

    def __enter__(self) -> Progress:
        self._open = True
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open = False
        self._hide()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the live view away while something else is printed."""
        live = self._live is not None
        self._hide()
        yield
        if live:
            self._show()

    def _show(self) -> None:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, get_renderable=self.view, transient=True, refresh_per_second=4
            )
            self._live.start()

    def _hide(self) -> None:
        if self._live:
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None

    def on_event(self, name: str, event: Event | Doing | str) -> None:
        """Take an event of a host's run, the next phase of the work on it, or a remark about it.

        Connections that end with the command are no events.
        """
        with self._lock:
            line = self._take(self._hosts[name], event) if self._open else ""
        if line:
            self._print(f"{name:<{self._width}} {line}")

    def _take(self, host: _Host, event: Event | Doing | str) -> str:
        """Take an event; the line about it that stays, above the live view where there is one."""
        if isinstance(event, str):
            return event
        if isinstance(event, Doing):
            return self._enter_phase(host, event)
        if event.kind == "start":
            host.step, host.number, host.said = visible(event.resource), event.index + 1, ""
            host.began = self.clock()
        elif event.kind == "out":
            host.said = visible(event.output.rstrip())
        elif event.kind == "say":
            return event.output
        elif event.kind != "end":
            return self._end_step(host, event)
        return ""

    def refresh(self) -> None:
        """Say now and then how far all hosts are, where nobody sees the live view."""
        with self._lock:
            now = self.clock()
            if self._live or now - self._told < HEARTBEAT:
                return
            self._told = now
            line = self._summary(now) + self._slowest(now)
        self._print(line)

    def view(self) -> Text:
        """The live view: a line about all hosts, and one for each that is worked on, the slowest first."""
        with self._lock:
            now = self.clock()
            running = sorted(self._running(), key=lambda item: item[1].began)
            shown = running[: max(1, min(ROWS, self.console.height - 4))]
            wide = max((len(host.doing) for _, host in shown), default=0)
            lines = [self._summary(now)]
            for name, host in shown:
                took = f"{now - host.began:5.0f} s"
                lines.append(f"{name:<{self._width}} {took}  {host.doing:<{wide}}  {host.said}")
            if len(running) > len(shown):
                lines.append(f"and {len(running) - len(shown)} more")
            width = self.console.width
            return Text("\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines))

    def _enter_phase(self, host: _Host, doing: Doing) -> str:
        host.phase, host.total, host.step, host.said = doing.phase, doing.steps, "", ""
        host.began = self.clock()
        if doing.phase not in ENDS or doing.phase in ("ok", host.told):
            return ""
        host.told = doing.phase
        return doing.phase + (f": {counted(doing.steps, 'change')}" if doing.steps else "")

    def _end_step(self, host: _Host, event: Event) -> str:
        word = {"ok": "changed", "skip": "unchanged", "fail": "FAILED"}[event.kind]
        seconds = f" ({event.milliseconds / 1000:.1f} s)" if event.milliseconds >= 100 else ""
        line = f"{host.place:>7} {word}: {host.step}{seconds}"
        host.step, host.said, host.began = "", "", self.clock()
        return line if event.kind == "fail" or len(self._hosts) <= FEW else ""

    def _running(self) -> Iterator[tuple[str, _Host]]:
        return ((name, host) for name, host in self._hosts.items() if host.running)

    def _summary(self, now: float) -> str:
        """``12 of 50 hosts done, 3 running, 1 failed, 34 waiting; 83 s``.

        Where planned hosts wait for few others, it names these.
        """
        count = Counter("running" if host.running else host.phase for host in self._hosts.values())
        done = sum(count[word] for word in ENDS)
        parts = [f"{done} of {counted(len(self._hosts), 'host')} done"]
        others = ("running", "failed", "unreachable", "skipped", *IDLE)
        parts += [f"{count[word]} {word}" for word in others if count[word]]
        running = [name for name, _ in self._running()]
        if count["planned"] and 0 < len(running) <= FEW:
            parts[-1] += f", waiting for {' and '.join(running)}"
        return f"{', '.join(parts)}; {now - self._began:.0f} s"

    def _slowest(self, now: float) -> str:
        """``; slowest: gpu-07, 7/25 image:x:1, 64 s: 3 of 7 layers``, with the last line of the step."""
        slowest = min(self._running(), key=lambda item: item[1].began, default=None)
        if slowest is None:
            return ""
        name, host = slowest
        said = f": {host.said}" if host.said else ""
        return f"; slowest: {name}, {host.doing}, {now - host.began:.0f} s{said}"

    def _print(self, text: str) -> None:
        """Print a line, without the lock: the live view has one too, and takes ours under it.

        What nobody can read, as on a full disk, is no reason to stop.
        """
        with contextlib.suppress(OSError):
            self.console.print(Text(visible(named(text))), soft_wrap=True)
