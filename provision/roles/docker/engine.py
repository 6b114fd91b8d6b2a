"""Which Docker Engine a host has: the declared one, another one, or something that only looks like Docker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, by_word
from provision.resource import Change, Planned, Single
from provision.shell import constant

SHELL = "docker/engine.sh"

ENGINES = tuple(constant(SHELL, "docker_engines").split())
"""Packages that bring dockerd, and start it when they are installed."""

QUESTION = Probe("docker-engine", "docker_here", (SHELL,), in_place=True)
"""What a host has of Docker, from files, processes and packages; no daemon is asked."""


@dataclass(frozen=True)
class EngineState:
    """What a host has.

    :ivar packages: names of the engine packages whose files are there.
    :ivar programs: where there is a dockerd.
    :ivar runs: whether root's dockerd runs.
    :ivar rootless: runtime folders of users whose own dockerd runs.
    :ivar snap: where the snap of Docker is, or empty.
    :ivar podman: the ``docker`` command that is podman, or empty.
    :ivar context: what root's docker commands talk to, if that is not the engine of the host.
    :ivar hidden: programs of packages, and those that are found before them: ``/usr/bin/runc by …``.
    :ivar asked: whether the host was asked; there are plans without one.
    """

    packages: tuple[str, ...]
    programs: tuple[str, ...] = ()
    runs: bool = False
    rootless: tuple[str, ...] = ()
    snap: str = ""
    podman: str = ""
    context: str = ""
    hidden: tuple[str, ...] = ()
    asked: bool = True


@dataclass(frozen=True)
class Engine(Single[EngineState]):
    """The host has one of these engines or none, and nothing in its place that the role cannot manage.

    It never changes anything: another engine may run somebody's containers, so it is refused.

    :ivar declared: package names; none where the engine that is there is left alone.
    """

    declared: tuple[str, ...]
    kind: ClassVar[str] = "docker-engine"

    @property
    def id(self) -> str:
        return "docker:engine"

    def question(self) -> Probe:
        return QUESTION

    def read(self, answer: Output) -> EngineState:
        return engine_here(answer)

    def bare(self) -> EngineState:
        return EngineState((), asked=False)

    def change(self, state: EngineState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Nothing to do, ever.

        :raises Refusal: if the role would work past the engine that is in use here.
        """
        refuse_look_alikes(state)
        refuse_other_engines(state, self.declared)
        return None

    def notes(self, state: EngineState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """Rootless engines beside the one of the host, and programs in place of the packages'."""
        rootless = [
            f"{_user(folder)} also runs a Docker of its own (rootless); it is not managed"
            for folder in state.rootless
        ]
        hidden = (line.partition(" by ")[::2] for line in state.hidden)
        return [*rootless, *(f"{by} is found before {own}, which a package brought" for own, by in hidden)]


def engine_here(answer: Output) -> EngineState:
    """Read the answer to :data:`QUESTION`."""
    found = by_word(answer.out)
    running = [folder.rpartition("/")[0] for folder in found.get("running", ())]
    context = re.search(r'^"currentContext": *"([^"]*)"$', answer.out, re.MULTILINE)
    return EngineState(
        packages=tuple(found.get("package", ())),
        programs=tuple(found.get("dockerd", ())),
        runs="/run" in running,
        rootless=tuple(folder for folder in running if folder != "/run"),
        snap="".join(found.get("snap", ())[:1]),
        podman="".join(found.get("podman", ())[:1]),
        context=context[1] if context and context[1] != "default" else "",
        hidden=tuple(dict.fromkeys(found.get("hidden", ()))),
    )


def refuse_other_engines(state: EngineState, declared: Sequence[str]) -> None:
    """See that a host has no other engine than one of these packages, where there are any.

    :raises Refusal: if it does.
    """
    others = [name for name in state.packages if name not in declared]
    if not declared:
        if state.asked and not state.packages and not state.programs:
            raise Refusal(
                "there is no Docker Engine here, and docker.source is none",
                hint="docker.source: archive or docker installs one",
            )
    elif others:
        raise Refusal(
            f"{others[0]} is installed here, and the settings want {', '.join(declared)}:"
            " to replace it would stop its containers",
            hint="docker.source: none leaves it alone and configures it; or remove it by hand",
        )
    elif state.programs and not state.packages:
        raise Refusal(
            f"there is a {state.programs[0]} that no known package brought",
            hint="docker.source: none leaves it alone and configures it; or remove it by hand",
        )


def refuse_look_alikes(found: EngineState) -> None:
    """See that nothing else is in the place of a host's Docker Engine.

    :raises Refusal: if something is.
    """
    if found.snap:
        raise Refusal(
            f"Docker is installed as a snap ({found.snap}), which reads another daemon.json"
            " and finds no NVIDIA runtime",
            hint="save what its containers need, then: snap remove --purge docker",
        )
    if found.podman:
        raise Refusal(
            f"{found.podman} is podman under another name (package podman-docker)",
            hint="remove the package podman-docker, or keep the role docker off this host",
        )
    if found.rootless and not found.runs:
        raise Refusal(
            f"Docker runs rootless here ({_user(found.rootless[0])}), and reads another daemon.json",
            hint="as that user: systemctl --user disable --now docker; or keep the role docker off this host",
        )
    if found.context:
        raise Refusal(
            f"root's docker commands go to the context {found.context!r}, not to the engine of this host",
            hint="as root: docker context use default",
        )


def _user(folder: str) -> str:
    return f"user {folder.removeprefix('/run/user/')}"
