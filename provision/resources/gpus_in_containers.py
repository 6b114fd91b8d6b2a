"""GPUs of running containers, which some of them lose when systemd reloads its units.

The legacy hook of NVIDIA's toolkit adds the devices behind the back of runc. Under the systemd cgroup driver
the next daemon-reload (of any unit file, or by a package) takes them away again; containers that got their
GPUs as CDI edits, through the nvidia runtime or ``--device``, keep them (NVIDIA Container Toolkit,
"Troubleshooting").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import CHECK, Change, Planned, Resource

CONTAINERS = "shell/containers.sh"
GPUS = "shell/gpus_in_containers.sh"

SIGHT = Probe("gpus in containers", "gpus_of_containers", (GPUS,))
"""Asks running containers whether they see their GPUs, and systemd whether they keep them."""


@dataclass(frozen=True)
class Seen:
    """A running container that was given GPUs.

    :ivar fragile: whether systemd takes them away when it reloads its units.
    :ivar blind: whether it does not see them even now.
    :ivar instance: the name of the instance that it is of; empty for somebody else's.
    """

    id: str
    name: str
    image: str
    fragile: bool
    blind: bool
    instance: str = ""

    def __str__(self) -> str:
        return f"container {self.name} ({self.image})"


def seen(answer: Output) -> list[Seen]:
    """Read the answer to :data:`SIGHT`."""
    rows = (line.split(" ", 5) for line in answer.out.splitlines())
    return [
        Seen(id_, name.removeprefix("/"), image, devices == "lost", sees == "no", "".join(instance))
        for id_, devices, sees, name, image, *instance in (row for row in rows if len(row) in (5, 6))
    ]


@dataclass(frozen=True)
class GpusInContainers(Resource[tuple[str, ...]]):
    """Containers that run and have GPUs still see them after all changes up to here.

    :ivar name: tells it from others of its kind.
    """

    name: str
    kind: ClassVar[str] = "gpus-in-containers"
    shell = (GPUS,)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def probe(cls, resources: Sequence[GpusInContainers]) -> Probe:  # noqa: ARG003
        """List running containers with NVIDIA's devices, without a single process."""
        return Probe("gpus-in-containers", "containers_with_gpus", (CONTAINERS,), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[GpusInContainers], answer: Output) -> Mapping[str, tuple[str, ...]]:
        """Ids of these containers, for each resource the same."""
        found = tuple(answer.out.split())
        return {r.id: found for r in resources}

    def bare(self) -> tuple[str, ...]:
        return ()

    def change(self, state: tuple[str, ...], planned: Planned) -> Change | None:
        """A check, if there are such containers and systemd reloads its units after the last such check."""
        if not state:
            return None
        checks = [i for i, c in enumerate(planned.changes) if c.resource.startswith(f"{self.kind}:")]
        last = checks[-1] + 1 if checks else 0
        if not any(change.reloads_systemd for change in planned.changes[last:]):
            return None
        mark = f'"$run"/{quote(f"gpus-seen-{self.name}")}'
        return Change(
            resource=self.id,
            action=CHECK,
            summary="check that running containers still see their GPUs",
            reason="systemd reloads its units, or dockerd restarts",
            preview=Probe("", f"echo told; {SIGHT.script}" if checks else SIGHT.script, SIGHT.shell),
            after_reboot=True,
            script=f"gpus_are_still_seen && : >{mark}",
            done=f"[ -e {mark} ]",
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Warn once of those that lose their GPUs; those that see none now are not held against the run."""
        containers = seen(answer)
        blind = [container.id for container in containers if container.blind]
        impact = [
            f"{container} does not see its GPUs even now: re-create it"
            if container.blind
            else f"{container} loses its GPUs when systemd reloads its units (legacy hook):"
            " re-create it with --runtime=nvidia"
            for container in containers
            if container.blind or container.fragile
        ]
        script = change.script.replace("gpus_are_still_seen", words("gpus_are_still_seen", *blind), 1)
        return replace(change, impact=() if answer.out.startswith("told\n") else tuple(impact), script=script)
