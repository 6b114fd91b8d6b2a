"""The CDI spec of the GPUs: what container engines that know CDI read to give a container its devices.

A spec names library files by their full version, so one that was made for another driver breaks every
container that uses it. From toolkit 1.18 on ``nvidia-cdi-refresh`` makes it at boot and when the driver's
modules change, but not after every change of the driver: it does nothing, without a word, where
``modules.dep`` of the running kernel does not name the driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from provision.errors import Refusal
from provision.probe import Output, Probe, by_word, quote, words
from provision.resource import Change, Planned, Resource
from provision.resources.file import LARGEST, parse_contents
from provision.shell import constant

STATE = "toolkit/cdi_state.sh"

KIND = constant(STATE, "cdi_kind")

FOLDERS = constant(STATE, "cdi_folders").split()
"""Where container engines look for specs."""

GENERATED = constant(STATE, "cdi_spec")
"""The spec that :data:`UNIT` writes; gone with every boot."""

UNIT = constant(STATE, "refresh_unit")

REFRESH = "refresh the CDI spec"
"""Name of the handler that makes it anew after changes of the driver or the toolkit."""

QUESTION = Probe("cdi", "cdi_state", (STATE,), in_place=True)
"""What the specs of a host say, and what is there."""


@dataclass(frozen=True)
class Spec:
    """A CDI spec file.

    :ivar names: the devices that it names.
    :ivar paths: files and device nodes of the host that containers get from it.
    :ivar gone: those of them that are not there.
    :ivar problem: why it cannot be read; empty if it can.
    """

    path: str
    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    gone: tuple[str, ...] = ()
    problem: str = ""

    def in_paths(self, pattern: str) -> set[str]:
        """What the group of ``pattern`` matches in its paths."""
        matches = (re.search(pattern, path) for path in self.paths)
        return {match[1] for match in matches if match}


@dataclass(frozen=True)
class CdiState:
    """What a host's driver and its specs are.

    :ivar driver: version of the loaded module; empty where none is loaded.
    :ivar uuids: of the GPUs that the driver shows.
    :ivar minors: numbers of their device nodes.
    :ivar mig: those among the minors whose GPU may be divided (MIG), and then is not named as a whole.
    :ivar instances: minors of the device nodes of MIG's compute instances.
    :ivar capabilities: minors of all nodes of MIG.
    :ivar at_boot: whether :data:`UNIT` makes the spec at boot; None where there is no such unit.
    :ivar specs: all specs of :data:`KIND`.
    """

    driver: str = ""
    uuids: frozenset[str] = frozenset()
    minors: frozenset[int] = frozenset()
    mig: frozenset[int] = frozenset()
    instances: frozenset[int] = frozenset()
    capabilities: frozenset[int] = frozenset()
    at_boot: bool | None = None
    specs: tuple[Spec, ...] = ()

    @property
    def generated(self) -> Spec | None:
        """The spec that is kept up to date."""
        return next((spec for spec in self.specs if spec.path == GENERATED), None)

    @property
    def others(self) -> tuple[Spec, ...]:
        """All others, which somebody made by hand or another tool left there."""
        return tuple(spec for spec in self.specs if spec.path != GENERATED)

    @property
    def conflicts(self) -> tuple[Spec, ...]:
        """Specs beside the generated one with its names: engines then resolve neither.

        Of two folders the later one of the engine's list counts.
        """
        mine = self.generated.names if self.generated else frozenset({"all"})
        folder = GENERATED.rpartition("/")[0]
        return tuple(s for s in self.others if s.path.rpartition("/")[0] == folder and s.names & mine)

    def faults(self, spec: Spec) -> list[str]:
        """Why a spec is not what the driver is, in words; empty if it is right."""
        if spec.problem:
            return [f"it cannot be read: {spec.problem}"]
        found = []
        drivers = spec.in_paths(r"/lib(?:cuda|nvidia-ml)\.so\.(\d+(?:\.\d+)+)$")
        if old := sorted(drivers - {self.driver}):
            found.append(f"it is of driver {', '.join(old)} and {self.driver} is loaded")
        elif spec.gone:
            others = len(spec.gone) - 1
            more = f" and {others} more file{'' if others == 1 else 's'}" if others else ""
            found.append(f"it names {spec.gone[0]}{more}, which the host does not have")
        nodes = set(map(int, spec.in_paths(r"^/dev/nvidia(\d+)\Z")))
        if silent := sorted(self.minors - self.mig - nodes):
            found.append(f"it lacks {_nodes(silent)}")
        if too_many := sorted(nodes - self.minors):
            found.append(f"it names {_nodes(too_many)}, which is no GPU of the driver")
        if strange := sorted(n for n in spec.names if n.startswith("GPU-") and n not in self.uuids):
            found.append(f"it names {strange[0]}, which is not in the host")
        caps = set(map(int, spec.in_paths(r"^/dev/nvidia-caps/nvidia-cap(\d+)\Z")))
        if self.instances - caps or caps - self.capabilities:
            found.append("it is of another division of the GPUs (MIG)")
        if "all" not in spec.names:
            found.append("it has no device all")
        return found


def parse(answer: Output) -> CdiState:
    """Read the answer to :data:`QUESTION`.

    :raises ValueError: if it cannot be understood.
    """
    head, mark, data = answer.stdout.partition(b"==> ")
    told = by_word(head.decode("utf-8", "backslashreplace"))
    if not answer.ok or next(iter(told), "") != "driver":
        raise ValueError(f"no answer about CDI: {answer.err.strip()}")
    gone = told.get("gone", [])
    specs = [_spec(path, text, gone) for path, text in parse_contents(mark + data).items()]
    caps = [text.rsplit(maxsplit=1) for text in told.get("cap", [])]
    return CdiState(
        driver=told["driver"][0],
        uuids=frozenset(told.get("uuid", [])),
        minors=frozenset(map(int, told.get("minor", []))),
        mig=frozenset(map(int, told.get("mig", []))),
        instances=frozenset(int(minor) for name, minor in caps if "/ci" in name),
        capabilities=frozenset(int(minor) for _, minor in caps),
        at_boot={"enabled": True, "disabled": False}.get(told.get("boot", ["never"])[0]),
        specs=tuple(spec for spec in specs if spec),
    )


def _spec(path: str, text: bytes, gone: Sequence[str]) -> Spec | None:
    """The spec in a file, of whose paths the host lacks some; None for another kind and for one cut short."""
    import yaml  # noqa: PLC0415 - takes its time to load, and hosts without CDI do not need it

    if KIND.encode() not in text or len(text) >= LARGEST:
        return None
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        if document["kind"] != KIND:
            return None
        paths = frozenset(_host_paths(document))
        names = frozenset(str(device["name"]) for device in document["devices"])
    except yaml.YAMLError as error:
        return Spec(path, problem=" ".join(str(error).split()))
    except (KeyError, TypeError, AttributeError) as error:
        return Spec(path, problem=f"{type(error).__name__}: {error}")
    return Spec(path, names, paths, tuple(sorted(paths.intersection(gone))))


def _host_paths(document: Mapping[str, Any]) -> Iterator[str]:
    """Files and nodes of the host that the edits of a spec name (CDI specification, "containerEdits")."""
    edits = [document.get("containerEdits"), *(d.get("containerEdits") for d in document["devices"])]
    for edit in filter(None, edits):
        yield from (mount["hostPath"] for mount in edit.get("mounts") or ())
        yield from (node.get("hostPath") or node["path"] for node in edit.get("deviceNodes") or ())
        yield from (hook["path"] for hook in edit.get("hooks") or ())


def _nodes(minors: Sequence[int]) -> str:
    return ", ".join(f"/dev/nvidia{minor}" for minor in minors)


@dataclass(frozen=True)
class CdiSpecs(Resource[CdiState]):
    """What holds of a part of the specs on a host.

    :ivar which: ``generated``: the spec of :data:`GENERATED` is of the driver that is loaded and names
        every GPU; ``others``: no further spec of the GPUs contradicts it.
    :ivar remove: move the others into the backups; without it they are only named, unless they contradict.
    """

    which: Literal["generated", "others"]
    remove: bool = False
    kind: ClassVar[str] = "cdi"
    shell = ("toolkit/cdi.sh",)

    @property
    def id(self) -> str:
        return f"cdi:{self.which}"

    @classmethod
    def probe(cls, resources: Sequence[CdiSpecs]) -> Probe:  # noqa: ARG003
        return QUESTION

    @classmethod
    def states(cls, resources: Sequence[CdiSpecs], answer: Output) -> Mapping[str, CdiState]:
        """State by id; it is the same for both parts."""
        state = parse(answer)
        return {r.id: state for r in resources}

    def bare(self) -> CdiState:
        return CdiState()

    def change(self, state: CdiState, planned: Planned) -> Change | None:
        """Make the spec where it is missing or stale, or remove the others.

        :raises Refusal: if another spec makes the names ambiguous and may not be removed.
        """
        if self.which == "others":
            return self._without_others(state)
        why = () if planned.positions((f"handler:{REFRESH}",)) else _reasons(state)
        if not why:
            return None
        return Change(
            resource=self.id,
            action="refresh",
            summary=REFRESH,
            reason="; ".join(why),
            done="cdi_was_refreshed",
            script="refresh_cdi_spec",
            after_reboot=True,
        )

    def _without_others(self, state: CdiState) -> Change | None:
        if state.conflicts and not self.remove:
            spec = state.conflicts[0]
            names = ", ".join(sorted(spec.names)[:3])
            raise Refusal(
                f"{spec.path} names devices of {KIND} ({names}) that {GENERATED} names too:"
                " container engines resolve neither",
                hint=f"look who wrote {spec.path}, and remove it; or toolkit.other_cdi_specs: remove",
            )
        if not state.others or not self.remove:
            return None
        paths = [spec.path for spec in state.others]
        return Change(
            resource=self.id,
            action="remove",
            summary=f"remove {', '.join(paths)} (kept in the backups)",
            reason=f"{GENERATED} names the same devices",
            sign="-",
            done=" && ".join(f"[ ! -e {quote(path)} ]" for path in paths),
            script=f"remove_cdi_specs {words(*paths)}",
        )

    def notes(self, state: CdiState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """Specs that stay beside the generated one, with what is wrong with them."""
        if self.which == "generated" or self.remove:
            return ()
        return tuple(_note(state, spec) for spec in state.others)


def _reasons(state: CdiState) -> tuple[str, ...]:
    """Why the spec is to be made now; nothing while no driver is there that it could be of."""
    if not state.driver:
        return ()
    boot = (f"{UNIT} is disabled, so it is missing after a reboot",) if state.at_boot is False else ()
    spec = state.generated
    return (*(state.faults(spec) if spec else (f"there is no {GENERATED}",)), *boot)


def _note(state: CdiState, spec: Spec) -> str:
    faults = state.faults(spec) if state.driver or spec.problem else []
    what = f"is stale: {faults[0]}" if faults else "is kept up to date by nobody"
    return (
        f"{spec.path}, a second CDI spec of {KIND}, {what}"
        " (toolkit.other_cdi_specs: remove moves it into the backups)"
    )
