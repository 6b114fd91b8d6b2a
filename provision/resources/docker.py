"""Docker: its configuration file, what the running daemon has loaded of it, and images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from provision.command import Output, Probe, quote, words
from provision.errors import Refusal
from provision.resources.base import ABSENT, UNKNOWN, Change, Missing, Planned, Resource
from provision.resources.file import DANGLING, File, FileState, parse_paths, read_paths

DAEMON_JSON = "/etc/docker/daemon.json"

RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "cluster-advertise",
        "cluster-store",
        "cluster-store-opts",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)
"""Keys of daemon.json that a running dockerd takes over at SIGHUP (dockerd(8), "Configuration reloading")."""


def merge(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``existing`` with ``wanted`` set in it: objects are merged, everything else is replaced.

    Keys keep their place, new ones come last, and what ``wanted`` does not name stays as it is.
    """
    merged = dict(existing)
    for key, value in wanted.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def as_text(document: Mapping[str, Any]) -> bytes:
    """The document as it is written to the host, laid out as nvidia-ctk does it."""
    # Half of a surrogate pair can stand in JSON only as the escape that backslashreplace makes of it.
    return (json.dumps(document, indent=4, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def parse(content: bytes) -> dict[str, Any]:
    """Read a daemon.json that somebody wrote.

    :raises Refusal: with what is wrong and where, if it is not one JSON object.
    """
    hint = f"repair {DAEMON_JSON} by hand or move it away; it is never overwritten while it cannot be read"
    if not content.strip():
        raise Refusal(f"{DAEMON_JSON} is empty, which dockerd refuses", hint=hint)
    try:
        document = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise Refusal(f"{DAEMON_JSON} is not UTF-8: byte {error.start}", hint=hint) from error
    except json.JSONDecodeError as error:
        raise Refusal(f"{DAEMON_JSON}:{error.lineno}: not JSON: {error.msg}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{DAEMON_JSON} cannot be kept as it is: {error}", hint=hint) from error
    if not isinstance(document, dict):
        raise Refusal(f"{DAEMON_JSON} holds a JSON {type(document).__name__}, not an object", hint=hint)
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _equal(one: Any, other: Any) -> bool:
    """Whether two documents mean the same; for Python ``True == 1``, for dockerd it is not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@dataclass(frozen=True)
class DaemonJson(Resource):
    """Keys that must be in daemon.json; all other keys of the file stay as they are."""

    wanted: Mapping[str, Any] = field(hash=False)
    kind: ClassVar[str] = "daemon-json"

    @property
    def id(self) -> str:
        """The id of the file, since that is what changes."""
        return f"file:{DAEMON_JSON}"

    @classmethod
    def probe(cls, resources: Sequence[DaemonJson]) -> Probe:  # noqa: ARG003
        """Read the file."""
        return read_paths("daemon-json", [DAEMON_JSON])

    @classmethod
    def states(cls, resources: Sequence[DaemonJson], answer: Output) -> Mapping[str, FileState | Missing]:
        """State of the file by id."""
        return {r.id: parse_paths([DAEMON_JSON], answer)[DAEMON_JSON] for r in resources}

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:
        """Write the merged document if it means something else than the present one.

        :raises Refusal: if the present file cannot be read as one JSON object.
        """
        existing = _existing(state)
        document = merge(existing, self.wanted)
        if _equal(document, existing) and not isinstance(state, Missing):
            return None
        content = as_text(document)
        write = _file(content, state).change(state, planned)
        if write is None:
            return None
        keys = sorted(k for k in self.wanted if k not in existing or not _equal(existing[k], document[k]))
        restart = [key for key in keys if key not in RELOADABLE]
        return Change(
            resource=self.id,
            action=write.action,
            summary=f"set {', '.join(keys)} in {DAEMON_JSON}",
            reason="other keys stay as they are" if existing else write.reason,
            diff=write.diff,
            script=f"validate_daemon_json <<'END' &&\n{content.decode()}END\n{write.script}",
            guard=write.guard,
            done=write.done,
            signals=("docker:restart",) if restart else ("docker:reload",),
        )


def _existing(state: FileState | Missing) -> dict[str, Any]:
    """The document that is there; an empty one where there is no file."""
    if isinstance(state, Missing) or state.type == DANGLING:
        return {}
    if state.content is None:
        size = "too large" if state.type == "file" else f"a {state.type}"
        raise Refusal(f"{DAEMON_JSON} is {size}", hint="repair it by hand or move it away")
    return parse(state.content)


def _file(content: bytes, state: FileState | Missing) -> File:
    """The file with this content, and with the mode and owner that somebody gave it."""
    if isinstance(state, Missing) or state.type == DANGLING or "UNKNOWN" in (state.owner, state.group):
        return File(DAEMON_JSON, content)
    return File(DAEMON_JSON, content, mode=state.mode, owner=state.owner, group=state.group)


@dataclass(frozen=True)
class DaemonLoaded(Resource):
    """The running dockerd knows these runtimes and uses this one by default.

    What is on disk counts for nothing until dockerd has read it, so this asks dockerd.
    """

    default_runtime: str
    runtimes: tuple[str, ...]
    kind: ClassVar[str] = "daemon-loaded"

    @property
    def id(self) -> str:
        """There is one dockerd on a host."""
        return "docker:loaded-configuration"

    @classmethod
    def probe(cls, resources: Sequence[DaemonLoaded]) -> Probe:  # noqa: ARG003
        """Ask dockerd; bounded, since a sick dockerd does not answer."""
        return Probe(
            "daemon-loaded",
            "command -v docker >/dev/null 2>&1 || { echo absent; exit 0; }\n"
            "timeout 20 docker info --format '{{json .DefaultRuntime}} {{json .Runtimes}}'",
        )

    @classmethod
    def states(
        cls, resources: Sequence[DaemonLoaded], answer: Output
    ) -> Mapping[str, tuple[str, frozenset[str]] | Missing]:
        """Default runtime and names of all runtimes; UNKNOWN while no dockerd answers."""
        return {r.id: _loaded(answer) for r in resources}

    def change(self, state: tuple[str, frozenset[str]] | Missing, planned: Planned) -> Change | None:
        """Reload dockerd where it runs with something else and nothing in the plan reloads it anyway."""
        if isinstance(state, Missing) or planned.positions(
            (
                "service:docker.service:start",
                "handler:restart docker.service",
                "handler:reload docker.service",
            )
        ):
            return None
        default, names = state
        if default == self.default_runtime and names.issuperset(self.runtimes):
            return None
        return Change(
            resource=self.id,
            action="reload",
            summary="reload docker.service (running containers are not touched)",
            reason=f"dockerd runs with default runtime {default} and knows {', '.join(sorted(names))}",
            done=f"docker_knows {words(self.default_runtime, *self.runtimes)}",
            script=f"reload_docker {words(self.default_runtime, *self.runtimes)}",
        )


def _loaded(answer: Output) -> tuple[str, frozenset[str]] | Missing:
    text = answer.out.strip()
    if not answer.ok or text == "absent" or not text:
        return UNKNOWN
    default, _, runtimes = text.partition(" ")
    try:
        # Without an answer of dockerd, newer clients print empty values and succeed.
        name = str(json.loads(default))
        return (name, frozenset(json.loads(runtimes) or ())) if name else UNKNOWN
    except (json.JSONDecodeError, TypeError):
        return UNKNOWN


@dataclass(frozen=True)
class Image(Resource):
    """A container image that is on the host, so that no unit start waits for a download.

    :ivar ref: ``NAME:TAG``, ``NAME@DIGEST`` or both.
    """

    ref: str
    kind: ClassVar[str] = "image"

    @property
    def id(self) -> str:
        """``image:REF``."""
        return f"image:{self.ref}"

    @classmethod
    def probe(cls, resources: Sequence[Image]) -> Probe:
        """Ask dockerd for all images in one call."""
        form = "{{json .RepoTags}} {{json .RepoDigests}}"
        return Probe(
            "image",
            "command -v docker >/dev/null 2>&1 || { echo unknown; exit 0; }\n"
            f"timeout 30 docker image inspect --format {quote(form)} {words(*(r.ref for r in resources))}",
        )

    @classmethod
    def states(cls, resources: Sequence[Image], answer: Output) -> Mapping[str, bool | Missing]:
        """True for an image that is there, ABSENT, or UNKNOWN while no dockerd answers."""
        answered = answer.ok or "no such image" in answer.err.lower()
        if not answered or answer.out.strip() == "unknown":
            return {r.id: UNKNOWN for r in resources}
        names = {name for line in answer.out.splitlines() if line.strip() for name in _image_names(line)}
        return {r.id: True if _familiar(r.ref) in names else ABSENT for r in resources}

    def change(self, state: bool | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Pull the image if it is not there, or if nobody can tell yet."""
        if state is True:
            return None
        return Change(
            resource=self.id,
            action="pull",
            summary=f"pull {self.ref}",
            reason="it is not on the host"
            if state is ABSENT
            else "Docker cannot be asked yet (assumed absent)",
            done=f"docker image inspect {quote(self.ref)} >/dev/null 2>&1",
            script=f"docker pull --quiet {quote(self.ref)}",
        )


def _image_names(line: str) -> list[str]:
    decoder = json.JSONDecoder()
    tags, end = decoder.raw_decode(line)
    digests, _ = decoder.raw_decode(line[end:].lstrip())
    return [_familiar(name) for name in (*(tags or ()), *(digests or ()))]


def _familiar(ref: str) -> str:
    """The short form that Docker prints: without its default registry, and by digest where there is one."""
    name, at, digest = ref.partition("@")
    if at:
        head, slash, tail = name.rpartition("/")
        name = f"{head}{slash}{tail.partition(':')[0]}"
    return name.removeprefix("docker.io/").removeprefix("library/") + at + digest
