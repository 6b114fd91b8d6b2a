"""A host that is played: it takes the place of a connection, and answers the scripts that hosts are sent.

It understands the words with which these scripts end: ``ask``, ``launch``, ``follow``.
Like a real host it keeps the events of its runs, what it owes and what it needs, whoever is connected.
"""

from __future__ import annotations

import base64
import itertools
import math
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from provision.connection import Connection
from provision.connection.login import Login
from provision.errors import UnreachableError
from provision.facts import PROBES, VIRTUALIZATION
from provision.hardware import HARDWARE, SOFTWARE
from provision.plan.script import ACTIVE, GONE, LAUNCH, NOT_STARTED
from provision.probe import Output, Probe, words
from provision.resource import AnyResource, Change, Handler, Permission, Planned, Resource
from provision.role import Role, Settings
from provision.run.host import HostRun
from provision.run.target import Target
from provision.shell import assembled

OF_RUNS = assembled(LAUNCH)
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
UP = "timeout -k 5 60 systemctl is-system-running --wait || :"


def encoded(text: str) -> str:
    """A text as events carry it."""
    return base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Thing(Resource[str]):
    """What a host has and runs change. Its state is what it needs: an action, with a reason if there is one.

    :ivar asks: whether the host is asked what the change would do.
    :ivar breaks: what planning it ends with, if it has a defect.
    """

    id_: str
    reboot: int = 0
    needs: Permission | None = None
    causes: tuple[str, ...] = ()
    after_reboot: bool = False
    asks: bool = False
    breaks: Exception | None = None
    kind: ClassVar[str] = "thing"

    @property
    def id(self) -> str:
        return self.id_

    @classmethod
    def probe(cls, resources: Sequence[Thing]) -> Probe:
        return Probe("thing", words("things", *(thing.id for thing in resources)))

    @classmethod
    def states(cls, resources: Sequence[Thing], answer: Output) -> Mapping[str, str]:
        return dict(zip((thing.id for thing in resources), answer.out.splitlines(), strict=True))

    def bare(self) -> str:
        return "create"

    def change(self, state: str, planned: Planned) -> Change | None:  # noqa: ARG002
        if self.breaks is not None:
            raise self.breaks
        action, _, reason = state.partition(" ")
        if not action:
            return None
        return Change(
            self.id,
            action,
            f"{action} {self.id}",
            "true",
            "false",
            reason=reason or f"{self.id} is wrong",
            needs=self.needs,
            causes=self.causes,
            reboot=self.reboot,
            after_reboot=self.after_reboot,
            preview=Probe("", words("preview", self.id)) if self.asks else None,
        )

    def refine(self, change: Change, answer: Output) -> Change:
        return replace(change, simulation=answer.out)


@dataclass
class Clock:
    """Time that passes only while somebody sleeps.

    :ivar slept: how long each time.
    """

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Incidents:
    """What goes wrong on a host or is special about it.

    :ivar cuts: after how many lines the connection is lost, for each time that a run is watched.
    :ivar silent: how many attempts to connect get no answer.
    :ivar down: how many of them get none after a reboot; none ever for infinity.
    :ivar stays_up: whether the host ignores reboots.
    :ivar forgets: whether it is rebooted by somebody else when the connection is lost.
    :ivar fails: status and output of the steps that fail.
    :ivar done: what is found to be right already when its step begins.
    :ivar undone: what is still wrong after its step.
    :ivar prints: lines that a step prints; only who follows the run sees them.
    :ivar after_boot: what is needed after the first reboot, the second, and so on.
    :ivar ends: how a run ends after some of its steps, if not by itself.
    :ivar steps: how many these are.
    :ivar overtaken: by which runs the next ones are, before they begin; "" for one that is over by then.
    :ivar error: what a command of a run ends with, if it says anything on standard error.
    :ivar hangs: what its probes wait for before they answer.
    """

    cuts: list[int] = field(default_factory=list)
    silent: float = 0
    down: float = 0
    stays_up: bool = False
    forgets: bool = False
    fails: dict[str, tuple[str, str]] = field(default_factory=dict)
    undone: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    prints: dict[str, list[str]] = field(default_factory=dict)
    after_boot: list[dict[str, str]] = field(default_factory=list)
    ends: str = ""
    steps: int = 1
    overtaken: list[str] = field(default_factory=list)
    error: str = ""
    hangs: threading.Event | None = None


class FakeHost(Connection):
    """A host and the connection to it. A connection that is lost looks open until it is closed.

    :ivar wants: what each of its things needs; empty where it is right.
    :ivar owed: notes of the handlers that are owed.
    :ivar recorded: what it says of its record.
    :ivar told: other answers than its own to questions behind facts and hardware, by the name of the probe.
    :ivar boot: how often it was booted since the start.
    :ivar spools: what each run wrote, until a reboot.
    :ivar runs: id and resources of every run that was begun through this connection.
    :ivar timeouts: seconds that each command was given.
    """

    def __init__(self, wants: Mapping[str, str] | None = None, name: str = "h") -> None:
        super().__init__(Login(name, "127.0.0.1", 22, "root"))
        self.wants = dict(wants or {})
        self.incidents = Incidents()
        self.owed: set[str] = set()
        self.recorded: list[str] = []
        self.told: dict[str, str] = {}
        self.boot = 0
        self.spools: dict[str, list[bytes]] = {}
        self.runs: list[tuple[str, list[str]]] = []
        self.timeouts: list[float] = []
        self.clock = Clock()
        self._connected = False
        self._lost = False
        self._busy: str | None = None
        self._theirs: tuple[str, ...] = ()
        self._late = False

    # --- the connection -------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._connected

    def open(self) -> None:
        if self._connected:
            return
        if self.incidents.silent > 0:
            self.incidents.silent -= 1
            raise UnreachableError(self.login.host, "no route to host")
        self._connected = True
        self.connects += 1

    def close(self) -> None:
        self._connected = self._lost = False

    def run(
        self,
        script: str,
        *,
        timeout: float,
        on_line: Callable[[bytes], None] | None = None,
        stdin: bytes = b"",  # noqa: ARG002
        what: str = "a script",  # noqa: ARG002
        then: Callable[[Output], str] | None = None,
    ) -> Output:
        self.open()
        self.execs += 1
        self.timeouts.append(timeout)
        if self._lost:
            raise UnreachableError(self.login.host, "the session ended")
        if script in (BOOT_ID, UP):
            return Output(0, f"b00{self.boot}\n".encode() if script == BOOT_ID else b"running\n")
        if script.startswith(OF_RUNS):
            assert on_line is not None
            return self._watched(script.removeprefix(OF_RUNS), on_line)
        answer = self._answers(script)
        return self._answers(then(answer)) if then else answer

    # --- questions ------------------------------------------------------------------------------------

    def _answers(self, script: str) -> Output:
        if self.incidents.hangs:
            assert self.incidents.hangs.wait(30), "nobody ended the probe that hangs"
        lines = script.splitlines()
        asked = [shlex.split(line)[1] for line in lines if line.startswith(("ask ", "ask_in_place "))]
        mark = next(line.partition("=")[2] for line in lines if line.startswith("gather_mark="))
        answers = "".join(f"{self._answer(question)}{mark} 0\n" for question in asked)
        return Output(0, answers.encode(), f"{mark}\n".encode() * len(asked))

    def _answer(self, script: str) -> str:
        word, *names = shlex.split(script)
        if word == "things":
            return "".join(f"{self.wants.get(name, '')}\n" for name in names)
        if word == "recorded":
            return "".join(f"{line}\n" for line in self.recorded)
        if word == "preview":
            return f"would change {names[0]}\n"
        if script == Handler.probe([]).script:
            return "".join(f"{note}\n" for note in sorted(self.owed))
        facts = {
            "os-release": "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
            "system": f"6.1.0-{self.boot}-amd64\nx86_64\namd64\nb00{self.boot}\n",
            VIRTUALIZATION.name: "kvm\n",
            ACTIVE.name: "" if self._late else self._busy or "",
        }
        known = (*PROBES, VIRTUALIZATION, HARDWARE, SOFTWARE, ACTIVE)
        return next((facts | self.told).get(probe.name, "") for probe in known if probe.script == script)

    # --- runs -----------------------------------------------------------------------------------------

    def _watched(self, script: str, on_line: Callable[[bytes], None]) -> Output:
        call, _, text = script.partition("\n")
        word, run, *rest = call.split(" ")
        live: Iterator[bytes] = iter(())
        begin = 0
        if word == "follow":
            if run not in self.spools:
                return Output(GONE)
            begin = int(rest[0]) - 1
            self._finish_theirs(run)
        elif run in self.spools:
            return Output(NOT_STARTED)
        elif self.incidents.overtaken:
            self.spools[run] = [f"end overtaken {encoded(self.incidents.overtaken.pop(0))}".encode()]
        elif self._busy is not None:
            on_line(f"busy {self._busy}".encode())
            return Output(0)
        else:
            self.spools[run] = []
            live = self._carry_out(run, text)
        self._send(run, live, begin, on_line)
        return Output(1 if self.incidents.error else 0, b"", self.incidents.error.encode())

    def _send(self, run: str, live: Iterator[bytes], begin: int, on_line: Callable[[bytes], None]) -> None:
        """Lines of a run as they come, or from a byte of its events on, until it ends or the session does."""
        left = self.incidents.cuts.pop(0) if self.incidents.cuts else math.inf
        kept = b"".join(line + b"\n" for line in self.spools.get(run, ()))[begin:]
        for line in itertools.chain(kept.split(b"\n")[:-1], live):
            if left <= 0:
                break
            left -= 1
            on_line(line)
        for _ in live:  # a run goes on, whoever is connected
            pass
        if left <= 0:
            self._lost = True
            if self.incidents.forgets:
                self._reboot()
            raise UnreachableError(self.login.host, "the connection was lost")

    def _carry_out(self, run: str, script: str) -> Iterator[bytes]:
        """Do the steps of a script, and tell about them; what is printed is told and not kept."""
        spool = self.spools[run]
        calls = [
            shlex.split(line) for line in script.splitlines() if line.startswith(("step ", "reboot_step "))
        ]
        self.runs.append((run, [call[2] for call in calls]))

        def event(*parts: Any) -> bytes:
            spool.append(" ".join(map(str, parts)).encode())
            return spool[-1]

        if self.incidents.error:
            return
        for word, index, name, owes, settles in calls:
            if self.incidents.ends and int(index) == self.incidents.steps:
                yield event("end", self.incidents.ends)
                return
            yield event("start", index, encoded(name))
            if name in self.incidents.done:
                self.wants[name] = ""
                yield event("skip", index)
                continue
            yield from (f"out {encoded(line)}".encode() for line in self.incidents.prints.get(name, ()))
            self.owed |= set(owes.split())
            if name in self.incidents.fails:
                status, output = self.incidents.fails[name]
                yield event("fail", index, status, 5, encoded(output))
                yield event("end", "failed")
                return
            self.owed -= set(settles.split())
            if name not in self.incidents.undone:
                self.wants[name] = ""
            yield event("ok", index, 5)
            if word == "reboot_step":
                yield event("end", "rebooting")
                self._reboot()
                return
        yield event("end", self.incidents.ends or "ok")

    def _reboot(self) -> None:
        if self.incidents.stays_up:
            return
        self.boot += 1
        self.spools, self._lost, self.incidents.silent = {}, True, self.incidents.down
        if self.incidents.after_boot:
            self.wants |= self.incidents.after_boot.pop(0)

    # --- somebody else's run --------------------------------------------------------------------------

    def busy_with(self, run: str, *resources: str, late: bool = False) -> None:
        """Somebody else's run is under way, and makes these right; ``late``: it begins after the plan."""
        self._busy, self._theirs, self._late = run, resources, late
        self.spools[run] = [f"start 0 {encoded('theirs')}".encode(), b"ok 0 1", b"end ok"]

    def _finish_theirs(self, run: str) -> None:
        if run == self._busy:
            self._busy = None
            self.wants |= dict.fromkeys(self._theirs, "")


def role_of(*resources: AnyResource) -> Role:
    """A role that declares these resources."""
    return Role("things", Settings, lambda *_: resources)


def target_of(host: FakeHost, *resources: AnyResource, granted: tuple[str, ...] = ()) -> Target:
    """A host with these resources; without any: all that it was made with, in that order."""
    declared = resources or tuple(map(Thing, host.wants))
    return Target(host.login.host, host.login, {role_of(*declared): Settings()}, granted)


def run_of(host: FakeHost, *resources: AnyResource, granted: tuple[str, ...] = ()) -> HostRun:
    """The run of a host that sleeps on the host's own clock."""
    return HostRun(target_of(host, *resources, granted=granted), host, host.clock, host.clock.sleep)
