"""The unit of a Triton server: its file, and its start and restart, which may stop others."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provision.causes.known_messages import hint_for
from provision.errors import Refusal
from provision.probe import Output, Probe, by_word, words
from provision.resource import OWED, Change, Handler, Missing, Planned, Resource
from provision.resources.driver_says import LOG
from provision.resources.file import FILES, File, FileState
from provision.resources.service import STARTS, Service, UnitState, masked
from provision.roles.triton.listening import Address, listening
from provision.roles.triton.rollback import STARTED, bring_up, keeping
from provision.roles.triton.unit import (
    command_of,
    command_signal,
    models_signal,
    needs_restart,
    repository_of,
)
from provision.shell import constant

CLIENT = constant("docker/engine.sh", "docker_client")
SERVE = "triton/serve.sh"
INSTANCES = "triton/instances.sh"

MARK = constant("shell/own_units.sh", "unit_mark")

FIRST_WITH_CDI = 25
"""Docker's first version with ``--device`` for CDI names (its release notes)."""

Ports = tuple[tuple[str, int], ...]
"""Setting and port of each port of the host that an instance publishes."""


@dataclass(frozen=True)
class UnitFile(File):
    """The unit file of an instance. It is only written where the instance can start with it.

    :ivar address: address of the host on which the ports are published.
    :ivar selection: the GPUs, as the gate takes them.
    :ivar gpus: how many GPUs the host has.
    :ivar ranks: how many the instance needs at least.
    :ivar injection: how the container gets its GPUs.
    :ivar beside: id of the file that we write with each unit.
    :ivar kept: the unit whose version is kept before the file changes; empty for none.
    """

    unit: str = ""
    address: str = "127.0.0.1"
    ports: Ports = ()
    selection: str = "all"
    gpus: int = 0
    ranks: int = 1
    beside: str = ""
    injection: str = "runtime"
    kept: str = ""
    shell = (FILES, SERVE)

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:
        """Write the file if it differs; a container whose command stays the same is left running.

        :raises Refusal: if the unit is somebody else's, or masked, or wants a GPU that the host has not.
        """
        self._refuse_absent_gpus()
        old = None
        if isinstance(state, FileState):
            old = state.content
            if state.type.startswith("character"):
                raise masked(self.unit)
            if old and not old.startswith(MARK.encode()) and planned.positions((f"{self.beside}:create",)):
                raise not_ours(self.unit, self.path)
        change = super().change(state, planned)
        if change is None:
            return None
        # Its words, however a version wrote them.
        was, wanted = _command(old), _command(self.content)
        anew = needs_restart(was, wanted)
        moves = repository_of(was) not in ("", repository_of(wanted))
        gpus = "none" if any(c.role == "driver" for c in planned.changes) else self.selection
        script = change.script.replace("<<'END'\n", "<<'END' &&\n", 1) + words("enabled_anew", self.unit)
        if not anew:
            return keeping(replace(change, script=script), self.kept, restarts=False)
        return keeping(
            replace(
                change,
                script=script,
                signals=(command_signal(self.unit), *([models_signal(self.unit)] if moves else [])),
                preview=Probe("", words("instance_needs", self.unit, gpus), (INSTANCES,)),
            ),
            self.kept,
        )

    def _refuse_absent_gpus(self) -> None:
        """By what the PCI bus tells; whether a UUID is there, the gate asks the driver."""
        if self.selection == "none":
            return
        named = [] if self.selection == "all" else self.selection.split(",")
        if absent := [gpu for gpu in named if gpu.isdigit() and int(gpu) >= self.gpus]:
            raise Refusal(
                f"{self.unit} wants GPU {absent[0]}, and the host has {self.gpus}",
                hint=f"gpus: indexes from 0 to {self.gpus - 1}, or UUIDs",
            )
        whole = sum(not gpu.startswith("MIG-") for gpu in named) if named else self.ranks
        if whole > self.gpus:
            wants = f"gpus names {whole}" if named else f"world_size is {whole}"
            raise Refusal(
                f"{self.unit}: {wants}, and the host has {self.gpus} GPU{'s' * (self.gpus != 1)}",
                hint="compare with inv facts --hosts {host}",
            )

    def refine(self, change: Change, answer: Output) -> Change:
        """Nothing more to say where the instance can start.

        :raises Refusal: if its GPUs, a port or the name of its container cannot be had.
        """
        found = by_word(answer.out)
        if gpus := found.get("gpus"):
            why = " ".join(gpus)
            lists = "is not among the GPUs" in why
            raise Refusal(
                f"{self.unit} cannot start: {why}",
                hint="compare gpus: with nvidia-smi -L on the host" if lists else hint_for(why) or LOG,
            )
        _refuse_foreign_container(self.unit, found)
        engine = "".join(found.get("engine", ()))
        major = engine.partition(".")[0]
        if self.injection == "cdi" and major.isdigit() and int(major) < FIRST_WITH_CDI:
            raise Refusal(
                f"{self.unit} cannot start: CDI takes Docker {FIRST_WITH_CDI} or later, and here is {engine}",
                hint="injection: runtime",
            )
        if "silent" not in found:
            _refuse_taken_ports(self.unit, self.address, self.ports, found)
        return change


def _refuse_foreign_container(unit: str, found: Mapping[str, Sequence[str]]) -> None:
    """Refuse the name of a container that somebody else has made."""
    for named in found.get("named", ()):
        image, _, label = named.partition(" ")
        if not label:
            container = unit.replace("@", "-").removesuffix(".service")
            raise Refusal(
                f"a container {container} ({image}) is on the host, and is not ours",
                hint=f"rename it: docker rename {container} NAME; or give the instance another name",
            )


def _refuse_taken_ports(unit: str, address: str, ports: Ports, found: Mapping[str, Sequence[str]]) -> None:
    """Refuse ports on which the host listens already, and none of the instances."""
    ours = {port for line in found.get("holds", ()) for port in line.split()[1:]}
    wanted = ipaddress.ip_address(address)
    taken = {port for at, port in listening(_rows(found)) if _overlap(at, wanted)}
    for setting, port in ports:
        if port in taken and str(port) not in ours:
            raise Refusal(
                f"{unit} cannot start: {setting} {port} is in use, by none of the instances",
                hint=f"on the host, ss -ltnp 'sport = :{port}' shows by whom: give another {setting}; a"
                " docker-proxy without a container goes with systemctl restart docker.service",
            )


def _rows(found: Mapping[str, Sequence[str]]) -> Output:
    return Output(0, "\n".join(found.get("socket", ())).encode())


def _overlap(one: Address, other: Address) -> bool:
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def _command(content: bytes | None) -> list[str]:
    return command_of((content or b"").decode("utf-8", "replace"))


def not_ours(unit: str, path: str) -> Refusal:
    """The refusal of a unit that somebody else wrote."""
    return Refusal(
        f"{path} is not ours, and {unit} is to be written",
        hint="give the instance another name, or move that unit away",
    )


@dataclass(frozen=True)
class Server(Service):
    """The unit of an instance, enabled and up.

    :ivar file: where its unit file has to be.
    :ivar address: of the host, on which the ports are published.
    :ivar ports: of the host, which other instances may hold.
    :ivar rollback: whether it serves with its previous version where it does not get ready.
    """

    file: str = ""
    address: str = "127.0.0.1"
    ports: Ports = ()
    rollback: bool = False
    shell = (SERVE,)

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:
        """Enable and start it; other instances that hold its ports stop for that.

        :raises Refusal: as any unit; or if somebody else's unit of that name is in use.
        """
        if (
            isinstance(state, UnitState)
            and state.fragment not in ("", self.file)
            and planned.positions((f"file:{self.file}:create",))
            and (state.active != "inactive" or state.enabled == "enabled")
        ):
            raise not_ours(self.unit, state.fragment)
        change = super().change(state, planned)
        if change is None or change.action not in STARTS:
            return change
        return replace(change, preview=_serving_now(self.unit, self._numbers))

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(port for _, port in self.ports)

    def starting(self, word: str) -> str:
        return bring_up(word, self.unit, self.timeout, self._numbers, rollback=self.rollback)

    def refine(self, change: Change, answer: Output) -> Change:
        """Name the instances that stop.

        :raises Refusal: if somebody else has its container's name, or one of its ports.
        """
        found = by_word(answer.out)
        _refuse_foreign_container(self.unit, found)
        _refuse_taken_ports(self.unit, self.address, self.ports, found)
        return replace(change, impact=_stopping(self.unit, answer))


@dataclass(frozen=True)
class ServerHandler(Handler):
    """What is owed to an instance. A start of it after all that was to come settles it, whoever starts it."""

    unit: str = ""
    shell: tuple[str, ...] = (SERVE,)

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return ServerHandler

    @classmethod
    def probe(cls, resources: Sequence[Handler]) -> Probe:
        """List the notes of the units that are still owed."""
        units = dict.fromkeys(r.unit for r in resources if isinstance(r, ServerHandler))
        return Probe("server-handler", words("owed_to_servers", OWED, *units), (STARTED,), in_place=True)


@dataclass(frozen=True)
class ServerRestart(ServerHandler):
    """A restart of an instance.

    :ivar rollback: whether it goes back to what it was started with where it does not get ready.
    """

    seconds: int = 0
    ports: tuple[int, ...] = ()
    rollback: bool = False

    def change(self, state: bool, planned: Planned) -> Change | None:
        """As of any handler; with a preview of whom it stops."""
        change = super().change(state, planned)
        return change and replace(change, preview=self.serving_now())

    def serving_now(self) -> Probe:
        """Asks what a restart would stop, and whether it could go back."""
        probe = _serving_now(self.unit, self.ports)
        unseen = words("unseen_files", self.unit)
        return replace(probe, script=f"{probe.script}\n{unseen}") if self.rollback else probe

    def refine(self, change: Change, answer: Output) -> Change:
        """Say what stops.

        :raises Refusal: if it could not go back to what it serves with.
        """
        found = by_word(answer.out)
        if "client" in found:
            raise Refusal(
                f"{self.unit} would not start again: Docker's client on the host is gone or cannot be run",
                hint=f"on the host: chmod 755 {CLIENT}, or install its package again",
            )
        if unseen := found.get("unseen"):
            raise Refusal(
                f"{self.unit}: {' and '.join(unseen)} changed after its start, and what it was started"
                " with is not kept, so that it could not go back",
                hint="rollback: false for this change; or, if what is on the host now is right: systemctl"
                f" daemon-reload; systemctl restart {self.unit}, which does not go back either",
            )
        state = "".join(found.get("state", ()))
        own = {
            "active": f"{self.unit} does not serve until it has loaded its models again",
            "activating": f"{self.unit} begins again with loading its models",
        }
        stopping = _stopping(self.unit, answer)
        if stopping and self.rollback:
            stopping = (*stopping, f"once {self.unit} is ready, its ports are not given back")
        return replace(change, impact=(*([own[state]] if state in own else []), *stopping))


def _serving_now(unit: str, ports: Sequence[int]) -> Probe:
    return Probe("", words("serving_now", unit, *map(str, ports)), (INSTANCES,))


def _stopping(unit: str, answer: Output) -> tuple[str, ...]:
    others = dict.fromkeys(by_word(answer.out).get("holder", ()))
    return tuple(f"{other} stops, as it holds a port of {unit}" for other in others)
