"""A plan as the one script that its host carries out, and the lines by which the host tells how it goes."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Literal

from provision.plan.backups import KEPT, Backups
from provision.plan.plan import STEPS, Plan
from provision.probe import Probe, quote, words
from provision.secrecy import without_secrets
from provision.shell import assembled, constant

LAUNCH = "shell/launch.sh"

SPOOL = constant(LAUNCH, "spool")
"""Folder of all runs on a host; root-only, gone with a reboot."""

GONE = int(constant(LAUNCH, "run_is_gone"))
"""Exit code of the script of :func:`follow` where the run is unknown to the host, as after a reboot."""

NOT_STARTED = int(constant(LAUNCH, "run_not_started"))
"""Exit code of the script of :func:`launch` where nothing was started."""

NOT_FOLLOWED = int(constant(LAUNCH, "run_not_followed"))
"""Exit code of both scripts where what followed the run was killed, and the run may go on."""

LONGEST = int(constant(LAUNCH, "longest_run"))
"""Seconds after which the host ends a run."""

ACTIVE = Probe("active-run", "active_run", ("shell/lock.sh",), in_place=True)
"""Asks which run is under way on a host; it prints nothing where there is none."""

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,99}")
_EVENT = re.compile(
    r"start \d{1,5} [\w+/=]*|skip \d{1,5}|ok \d{1,5} \d{1,9}"
    r"|fail \d{1,5} (\d{1,3}|guard|unproven) \d{1,9}( [\w+/=]*)?"
    r"|(say|out) [\w+/=]*|end (ok|failed|interrupted|rebooting)|end (overtaken|stopped)( [\w+/=]*)?",
    re.ASCII,
)


def run_id_of(text: str) -> str:
    """The id of a run, as a host names it.

    :raises ValueError: if it is none.
    """
    if not _ID.fullmatch(text):
        raise ValueError(f"not the id of a run: {text[:100]!r}")
    return text


def script_of(plan: Plan, run: str, backups: Backups = KEPT) -> str:
    """The sh script that carries out ``plan`` as run ``run``."""
    files = dict.fromkeys(file for change in plan.changes for file in change.shell)
    kept = f"kept_backups={backups.newest} backup_days={backups.days}\n"
    parts = [f"run={quote(f'{SPOOL}/{run}')}\n{assembled(STEPS, *files)}{kept}begin\n"]
    for index, change in enumerate(plan.changes):
        # Before the step, which may find that there is nothing to do; and in it, where a failure is told.
        remember = f"remember {words(*change.leaves)}" if change.leaves else ""
        do = f"{remember} || return\n{change.script}" if remember else change.script
        varying = f"{change.varying}\n" if change.varying else ""
        for name, body in (("done", change.done), ("guard", change.guard), ("do", do)):
            parts.append(f"{name}_{index}() {{\n{varying}{body or ':'}\n}}\n")
        parts.append(f"{remember}\n" if remember else "")
        owes, settles = " ".join(change.owes), " ".join(change.settles)
        word = "reboot_step" if change.reboot else "step"
        parts.append(f"{word} {index} {words(change.resource, owes, settles)}\n")
    return "".join(parts) + "finish ok\n"


def launch(plan: Plan, run: str, backups: Backups = KEPT) -> str:
    """Sh text that puts the script on the host, starts it detached, and follows it to its end.

    It answers ``busy RUN`` and starts nothing if another run is under way.
    """
    end = f"END-{run}"
    return f"{assembled(LAUNCH)}launch {run_id_of(run)} <<'{end}'\n{script_of(plan, run, backups)}{end}\n"


def follow(run: str, offset: int) -> str:
    """Sh text that prints the events of a run from byte ``offset`` until the run is over."""
    return f"{assembled(LAUNCH)}follow {run_id_of(run)} {offset + 1}\n"


@dataclass(frozen=True)
class Event:
    """One line that a host wrote about its run.

    :ivar kind: ``start``, ``skip``, ``ok`` or ``fail`` of a step, ``say`` for a remark, ``end`` of the run;
        ``out`` for what the running step prints, which only those who follow see.
    :ivar index: number of the step in the plan; -1 for the end.
    :ivar resource: what the step is about; known at its start.
    :ivar status: for ``fail`` the exit code, ``guard`` or ``unproven``; for ``end`` ``ok``, ``failed``,
        ``interrupted``, ``overtaken``, ``stopped`` or ``rebooting``.
    :ivar milliseconds: how long the step took.
    :ivar output: for ``fail`` the last lines that it printed, for ``out`` the last one; for ``say`` the
        remark; for ``overtaken`` the run that was started instead, for ``stopped`` who asked for that.
    """

    kind: Literal["start", "skip", "ok", "fail", "say", "out", "end"]
    index: int = -1
    resource: str = ""
    status: str = ""
    milliseconds: int = 0
    output: str = ""


def parse_event(line: str) -> Event:
    """Read one line of a run's events.

    :raises ValueError: if it is none.
    """
    if not _EVENT.fullmatch(line):
        raise ValueError(f"not an event of a run: {line[:100]!r}")
    match line.split(" "):
        case ["start", index, name]:
            return Event("start", int(index), resource=_decode(name))
        case ["skip", index]:
            return Event("skip", int(index))
        case ["ok", index, took]:
            return Event("ok", int(index), milliseconds=int(took))
        case ["fail", index, status, took, *output]:
            return Event(
                "fail", int(index), status=status, milliseconds=int(took), output=_decode("".join(output))
            )
        case ["say" | "out" as kind, text]:
            return Event(kind, output=_decode(text))
        case ["end", status, *output]:
            told = _decode("".join(output)).strip()
            return Event(
                "end", status=status, output=told and run_id_of(told) if status == "overtaken" else told
            )
    raise AssertionError(line)


def _decode(text: str) -> str:
    """What a host tells, without passwords that its programs print."""
    return without_secrets(base64.b64decode(text, validate=True).decode("utf-8", "backslashreplace"))
