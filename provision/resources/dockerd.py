"""What dockerd answers: one question to it for all kinds of resources whose state it knows."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from provision.errors import Refusal
from provision.probe import Output, Probe, words
from provision.resource import Resource, State
from provision.shell import constant

DOCKERD = "shell/dockerd.sh"

_SILENT = int(constant(DOCKERD, "dockerd_is_silent"))
_PATIENCE = constant(DOCKERD, "docker_patience")


@dataclass(frozen=True)
class Told:
    """One answer of dockerd.

    :ivar status: of HTTP; 0 where dockerd gave no answer that can be read.
    """

    status: int = 0
    document: Mapping[str, Any] = field(default_factory=dict)

    def strings(self, key: str) -> frozenset[str]:
        """The strings, or the keys, that the document has under a key; none for anything else."""
        found = self.document.get(key)
        return frozenset(map(str, found)) if isinstance(found, list | dict) else frozenset()


class OfDockerd(Resource[State]):
    """What all kinds share whose state dockerd tells in one answer.

    :cvar read_from: a file that dockerd reads when it starts, if the answer tells what it has read of it.
        dockerd is not asked where it started after the last change of that file.
    """

    kind: ClassVar[str] = "dockerd"
    read_from: ClassVar[str] = ""

    @property
    @abstractmethod
    def places(self) -> tuple[str, ...]:
        """What dockerd is asked for: paths of its HTTP interface."""

    @abstractmethod
    def seen(self, *told: Told) -> State:
        """Its state, from the answers."""

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return OfDockerd

    @classmethod
    def probe(cls, resources: Sequence[Self]) -> Probe:
        """Ask dockerd for everything at once."""
        *places, last = _places(resources)
        file = next((r.read_from for r in resources if r.read_from), "")
        ask = ("ask_dockerd_of", file, last) if file else ("ask_dockerd", *places, last)
        return Probe("dockerd", words(*ask, *(places if file else ())), (DOCKERD,), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Self], answer: Output) -> Mapping[str, State]:
        """State by id.

        :raises Refusal: if dockerd runs and does not answer: what it does with an order, nobody can tell.
        """
        if answer.exit_code == _SILENT:
            raise Refusal(
                f"dockerd runs and does not answer: it was asked for {_PATIENCE} s",
                hint="on the host: journalctl -u docker.service; if it is stopped (state T in ps), kill -CONT"
                " its process; else systemctl restart docker.service, which stops containers",
            )
        places = _places(resources)
        told = all_told(answer.out)
        found = dict(zip(places, [*told, *[Told()] * len(places)], strict=False))
        return {r.id: r.seen(*(found[place] for place in r.places)) for r in resources}


def _places(resources: Iterable[OfDockerd[Any]]) -> list[str]:
    """What to ask for, once each; what need not be asked comes last, so that its answer may be missing."""
    in_order = sorted(resources, key=lambda r: bool(r.read_from))
    return list(dict.fromkeys(place for r in in_order for place in r.places))


def all_told(text: str) -> list[Told]:
    """The answers in a row of documents and statuses, up to the first that cannot be read."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        try:
            document, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
            status, end = decoder.raw_decode(text)
        except (json.JSONDecodeError, RecursionError):
            break
        text = text[end:]
        readable = isinstance(status, int) and isinstance(document, dict)
        found.append(Told(status, document) if readable else Told())
    return found
