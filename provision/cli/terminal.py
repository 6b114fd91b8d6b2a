"""What people see while a command runs: progress on standard error, questions, and errors in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from provision.cli import program_name
from provision.errors import ProvisionError, UsageError
from provision.plan.script import Event

SLOW = 15.0
"""Seconds after which a step that is still running is mentioned, and again each time they have passed."""

STYLES = {"+": "green", "-": "red", "~": "yellow"}


def named(text: str) -> str:
    """``text`` with the commands in it (``inv plan …``) as the running program is called."""
    return re.sub(r"(?<![\w./-])inv (?=[a-z])", f"{program_name()} ", text)


def write_data(text: str) -> None:
    """Print data: to standard output, coloured on terminals only, never wrapped."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in text.rstrip("\n").split("\n"):
        sign = line.strip()[:1]
        shown = named(line) if line.lstrip().startswith("hint: ") else line
        styled = line.startswith("    ") and sign in STYLES
        console.print(Text(shown, style=STYLES.get(sign, "") if styled else ""))


def write_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def log(text: str) -> None:
    """Print a remark: to standard error."""
    print(named(text), file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def error_boundary() -> Iterator[None]:
    """Turn our errors into one sentence, a hint and an exit code; interrupts end at once with 130."""
    try:
        yield
    except KeyboardInterrupt:
        log("interrupted: a run that has started continues on its host, and the next run attaches to it")
        sys.stdout.flush()
        # Threads may wait for hosts for minutes; nothing here needs their end.
        os._exit(130)
    except ProvisionError as error:
        log(f"error: {error}")
        if error.hint:
            log(f"hint: {error.hint}")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def confirmed(question: str) -> bool:
    """Ask a yes-or-no question where somebody can answer; elsewhere the answer is yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Progress:
    """One line for every step that ends, with its host in front; slow steps are mentioned while they run."""

    def __init__(self, steps: Mapping[str, int]) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self._running: dict[str, tuple[str, float, float]] = {}
        self._width = max((len(name) for name in steps), default=0)

    def on_event(self, host: str, event: Event | str) -> None:
        """Take an event of a host's run, or a remark about the host."""
        with self._lock:
            if isinstance(event, str):
                self._line(host, event)
            elif event.kind == "start":
                self._running[host] = (event.resource, time.monotonic(), time.monotonic())
            elif event.kind == "say":
                self._line(host, event.output)
            elif event.kind != "end":
                resource, _, _ = self._running.pop(host, ("", 0.0, 0.0))
                self._step(host, event, resource)

    def refresh(self) -> None:
        """Mention the steps that have been running for long."""
        now = time.monotonic()
        with self._lock:
            for host, (resource, began, told) in self._running.items():
                if now - told >= SLOW:
                    self._line(host, f"… {resource} ({now - began:.0f} s so far)")
                    self._running[host] = (resource, began, now)

    def _step(self, host: str, event: Event, resource: str) -> None:
        word = {"ok": "changed", "skip": "unchanged", "fail": "FAILED"}[event.kind]
        seconds = f" ({event.milliseconds / 1000:.1f} s)" if event.milliseconds >= 100 else ""
        total = self._steps.get(host)
        number = f"{event.index + 1}/{total}" if total else f"{event.index + 1}"
        self._line(host, f"{number:>7} {word}: {resource}{seconds}")

    def _line(self, host: str, text: str) -> None:
        log(f"{host:<{self._width}} {text}")
