"""Container images that are on a host."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, UNKNOWN, Change, Missing, Planned, Resource

CONTAINERS = "shell/containers.sh"


@dataclass(frozen=True)
class Image(Resource[bool | Missing]):
    """A container image that is on the host, so that no unit start waits for a download.

    :ivar ref: ``NAME:TAG``, ``NAME@DIGEST`` or both.
    """

    ref: str
    kind: ClassVar[str] = "image"

    @property
    def id(self) -> str:
        return f"image:{self.ref}"

    @classmethod
    def probe(cls, resources: Sequence[Image]) -> Probe:
        """Ask dockerd for all images in one call."""
        return Probe("image", words("image_names", *(r.ref for r in resources)), (CONTAINERS,))

    @classmethod
    def states(cls, resources: Sequence[Image], answer: Output) -> Mapping[str, bool | Missing]:
        """True for an image that is there, ABSENT, or UNKNOWN while no dockerd answers."""
        answered = answer.ok or "no such image" in answer.err.lower()
        if not answered or answer.out.strip() == "unknown":
            return {r.id: UNKNOWN for r in resources}
        names = {name for line in answer.out.splitlines() if line.strip() for name in _image_names(line)}
        return {r.id: True if _familiar(r.ref) in names else ABSENT for r in resources}

    def bare(self) -> Missing:
        """Nobody can tell before Docker is there."""
        return UNKNOWN

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
            sign="+",
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
