"""Docker: what the running daemon has loaded of its configuration, and images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.command import Output, Probe, quote, words
from provision.resources.base import ABSENT, UNKNOWN, Change, Missing, Planned, Resource


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
