"""A plan as the one script that its host carries out, and the lines by which the host tells how it goes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal

from provision.command import quote, words
from provision.plan import Plan
from provision.render import TEMPLATES

WORDS = TEMPLATES / "run"
"""The functions that steps are written in: ``steps.sh`` runs them, each of the others is about one topic."""

SPOOL = "/run/provision"
"""Folder of all runs on a host; root-only, gone with a reboot."""

GONE = 66
"""Exit code of the script of :func:`follow` where the run is unknown to the host, as after a reboot."""

KEPT_RUNS = 10
"""Spools of earlier runs that stay on a host for reading."""


def script_of(plan: Plan, run: str) -> str:
    """The sh script that carries out ``plan`` as run ``run``."""
    head = "".join(file.read_text("utf-8") for file in sorted(WORDS.glob("*.sh")))
    parts = [f"run={quote(f'{SPOOL}/{run}')}\n{head}begin\n"]
    for index, change in enumerate(plan.changes):
        for name, body in (("done", change.done), ("guard", change.guard), ("do", change.script)):
            parts.append(f"{name}_{index}() {{\n{body or ':'}\n}}\n")
        owes, settles = " ".join(change.owes), " ".join(change.settles)
        word = "reboot_step" if change.reboot else "step"
        parts.append(f"{word} {index} {words(change.resource, owes, settles)}\n")
    return "".join(parts) + "finish ok\n"


def launch(plan: Plan, run: str) -> str:
    """Sh text that puts the script on the host, starts it detached, and follows it to its end.

    It answers ``busy RUN`` and starts nothing if another run is under way. The lock of a run
    whose process is gone is taken over; one whose process has not begun yet, after a minute.
    """
    end = f"END-{run}"
    return f"""umask 077
# From the lock to the start of the script nothing may stop this, neither a lost connection nor an interrupt.
trap '' HUP INT PIPE
mkdir -p {SPOOL} && cd {SPOOL} || exit 1
if ! mkdir lock 2>/dev/null; then
  other=$(cat lock/run 2>/dev/null)
  pid=$(cat "$other/pid" 2>/dev/null)
  if {{ [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }} ||
    {{ [ -z "$pid" ] && [ -z "$(find lock -mmin +1 -prune)" ]; }} ||
    ! mv -T lock "stale-{run}" 2>/dev/null || ! mkdir lock 2>/dev/null; then
    echo "busy $other"
    exit 0
  fi
fi
echo {run} >lock/run
ls -1t | grep -v -x lock | tail -n +{KEPT_RUNS} | while IFS= read -r old; do rm -rf -- "$old"; done
mkdir {run} && : >{run}/events || exit 1
cat >{run}/script <<'{end}'
{script_of(plan, run)}{end}
if [ -d /run/systemd/system ]; then
  systemd-run --quiet --collect --unit=provision-{run} --description="provision run {run}" \\
    /bin/sh {SPOOL}/{run}/script || {{ rm -rf lock; exit 1; }}
else
  # A child of this shell would stay as a zombie, for which tail waits.
  (setsid /bin/sh {SPOOL}/{run}/script </dev/null >/dev/null 2>&1 &)
fi
trap - HUP INT PIPE
{follow(run, 0)}"""


def follow(run: str, offset: int) -> str:
    """Sh text that prints the events of a run from byte ``offset`` until the run is over."""
    return f"""cd {SPOOL}/{run} || exit {GONE}
tries=0
while [ ! -s pid ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
tail -c +{offset + 1} -s 0.1 --pid="$(cat pid)" -f events
"""


ACTIVE = f"""run=$(cat {SPOOL}/lock/run 2>/dev/null) || exit 0
if pid=$(cat "{SPOOL}/$run/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null; then echo "$run"; fi"""
"""Sh text that prints the run that is under way on a host, or nothing."""


@dataclass(frozen=True)
class Event:
    """One line that a host wrote about its run.

    :ivar kind: ``start``, ``skip``, ``ok`` or ``fail`` of a step, ``say`` for a remark, ``end`` of the run.
    :ivar index: number of the step in the plan; -1 for the end.
    :ivar resource: what the step is about; known at its start.
    :ivar status: for ``fail`` the exit code, ``guard`` or ``unproven``; for ``end`` ``ok``, ``failed``,
        ``interrupted`` or ``rebooting``.
    :ivar milliseconds: how long the step took.
    :ivar output: for ``fail`` the last lines that it printed, for ``say`` the remark.
    """

    kind: Literal["start", "skip", "ok", "fail", "say", "end"]
    index: int = -1
    resource: str = ""
    status: str = ""
    milliseconds: int = 0
    output: str = ""


def parse_event(line: str) -> Event:
    """Read one line of a run's events.

    :raises ValueError: if it is none.
    """
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
        case ["say", remark]:
            return Event("say", output=_decode(remark))
        case ["end", status]:
            return Event("end", status=status)
    raise ValueError(f"not an event of a run: {line!r}")


def _decode(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("utf-8", "backslashreplace")
