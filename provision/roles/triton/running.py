"""What an instance runs, which may be another thing than its unit and its image are now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

from provision.causes.known_messages import NO_PROCESS
from provision.probe import Output, Probe, quote, words
from provision.resource import UNKNOWN, Change, Missing, Planned, Resource, State
from provision.resources.dockerd import OfDockerd, Told
from provision.resources.file import parse_contents
from provision.resources.image import Image
from provision.roles.triton.server import SERVE, ServerRestart
from provision.roles.triton.unit import needs_restart

RUNNING = "triton/running.sh"

PROCESSES = "-eo%20pid,args"
"""What ``docker top`` hands to ps, of which it needs the process ids."""


class Running(Resource[State]):
    """What both kinds share: whatever else runs, a restart of the unit makes it right."""

    restart: ServerRestart
    shell = (SERVE, RUNNING)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.restart.unit}"

    def restarted(self, planned: Planned, reason: str, done: str) -> Change | None:
        """The restart, unless the plan starts the unit anyway."""
        unit = self.restart.unit
        starts = (f"service:{unit}:start", f"service:{unit}:await", self.restart.id, f"command:{unit}")
        if planned.positions(starts):
            return None
        return Change(
            resource=self.id,
            action="restart",
            summary=self.restart.name,
            reason=reason,
            done=done,
            script=self.restart.script,
            preview=self.restart.serving_now(),
            after_reboot=True,
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Say what stops."""
        return self.restart.refine(change, answer)


@dataclass(frozen=True)
class RunningCommand(Running[bytes | None]):
    """The process of the unit was started with the command that is in its file.

    :ivar restart: the restart of the instance.
    :ivar command: the words of the command.
    """

    restart: ServerRestart
    command: tuple[str, ...]
    kind: ClassVar[str] = "command"

    @classmethod
    def probe(cls, resources: Sequence[RunningCommand]) -> Probe:
        """Read what the processes of all units were started with."""
        units = (r.restart.unit for r in resources)
        return Probe("command", words("commands_of", *units), (RUNNING,), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[RunningCommand], answer: Output) -> Mapping[str, bytes | None]:
        """What each process was started with; None where none runs, or a drop-in sets its command."""
        head, _, data = b"\n".join((b"", answer.stdout)).partition(b"\n\n")
        processes = dict(line.split(" ", 1) for line in head.decode("ascii").split("\n") if line)
        found = parse_contents(data)
        return {
            r.id: found.get(f"/proc/{processes.get(r.restart.unit, '')}/cmdline") or None for r in resources
        }

    def bare(self) -> None:
        return None

    def change(self, state: bytes | None, planned: Planned) -> Change | None:
        """Restart the unit if it was started with another command."""
        if state is None or not needs_restart(runs := _words(state), self.command):
            return None
        wanted = "".join(f"{word}\0" for word in self.command).encode()
        done = words("runs_command", self.restart.unit, hashlib.sha256(wanted).hexdigest())
        others = " ".join(word for word in runs if word not in self.command) or "other words"
        told = others.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return self.restarted(planned, f"it runs with {told}", done)

    def notes(self, state: bytes | None, planned: Planned) -> Sequence[str]:
        """What its next start takes and nobody restarts it for."""
        unit = self.restart.unit
        runs = list(self.command) if state is None else _words(state)
        waits = runs != list(self.command) and not needs_restart(runs, self.command)
        if not waits or planned.positions((self.restart.id, self.id, f"image-of:{unit}")):
            return ()
        return (f"{unit} runs without no_new_privileges, and takes it at its next start",)


def _words(cmdline: bytes) -> list[str]:
    """The words of a process's command line; bytes that are no text are kept."""
    return cmdline.rstrip(b"\n").decode("utf-8", "surrogateescape").split("\0")[:-1]


Images = tuple[str, str]
"""Ids of the image that a container runs, and of the one that the name stands for."""

PAUSED: Images = ("paused", "")
"""Of a container that somebody has paused: it runs, and does nothing."""

DOWN: Images = ("down", "")
"""Of a container that Docker calls stopped, or does not know."""

GONE: Images = ("gone", "")
"""Of a container that Docker calls running and whose process is gone, as when its shim was killed."""

NONE_RUNS = {
    DOWN: "its unit is up, and its container does not run",
    GONE: "its process is gone, and Docker does not know",
}
"""Why a unit is restarted that is up for nothing: the client of Docker may wait for ever."""


@dataclass(frozen=True)
class RunningImage(Running[Images | Missing], OfDockerd[Images | Missing]):
    """The container of the unit runs the image that its name stands for.

    :ivar restart: the restart of the instance.
    :ivar container: its name.
    :ivar image: the image of the settings.
    """

    restart: ServerRestart
    container: str
    image: Image
    kind: ClassVar[str] = "image-of"

    @property
    def places(self) -> tuple[str, ...]:
        container = f"/containers/{self.container}"
        return f"{container}/json", f"{container}/top?ps_args={PROCESSES}", self.image.place

    def seen(self, *told: Told) -> Images | Missing:
        """Both ids of a container that runs, or what it is instead; UNKNOWN where dockerd did not say."""
        container, processes, image = told
        if container.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            return UNKNOWN
        is_so = container.document.get("State", {})
        if is_so.get("Paused") is True:
            return PAUSED
        if is_so.get("Running") is not True:
            return DOWN
        if re.search(NO_PROCESS, str(processes.document.get("message", ""))):
            return GONE
        return str(container.document.get("Image", "")), str(image.document.get("Id", ""))

    def bare(self) -> Missing:
        return UNKNOWN

    def _unpaused(self, planned: Planned) -> Change | None:
        if planned.positions((self.restart.id,)):
            return None
        return Change(
            resource=self.id,
            action="unpause",
            summary=f"unpause {self.container}",
            reason="somebody has paused it, so that it answers nobody",
            done=words("is_not_paused", self.container),
            script=f"timeout -k 5 60 docker unpause {quote(self.container)}",
        )

    def change(self, state: Images | Missing, planned: Planned) -> Change | None:
        """Restart the unit if its container runs another image, which a pull may bring, or does not run."""
        if state == PAUSED:
            return self._unpaused(planned)
        if isinstance(state, Missing):
            return None
        if state in NONE_RUNS:
            return self.restarted(planned, NONE_RUNS[state], words("has_process", self.container))
        pulled = planned.positions((self.image.id,))
        if state[0] == state[1] and not pulled:
            return None
        reason = (
            "if the pull brings another image" if pulled else f"it runs another image than {self.image.ref}"
        )
        return self.restarted(planned, reason, words("runs_image", self.container, self.image.ref))
