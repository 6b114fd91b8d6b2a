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

from provision.command import Output, Probe, quote, words
from provision.resources.base import Change, Missing, Planned, Resource

RELOADING = (
    "packages:",
    "service:",
    "no-other-units:",
    "handler:reload systemd",
    "handler:restart docker",
    "file:/etc/systemd/",
)
"""How the ids of resources begin whose changes make systemd reload its units."""

_TASKS = """for task in /run/containerd/io.containerd.runtime.v2.task/moby/* \\
  /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*; do
  pid=
  read -r pid 2>/dev/null <"$task/init.pid" || [ -n "$pid" ] || continue
  [ -e "/proc/$pid/root/dev/nvidiactl" ] || continue
  id=${task##*/}"""

LOOK = f"""sees() {{
  said=$(timeout 20 docker exec "$1" nvidia-smi -L 2>&1)
  case "$? $said" in
    "0 "*) echo yes ;;
    124* | 126* | 127* | *"Error response from daemon"*) echo unknown ;;
    *) echo no ;;
  esac
}}
{_TASKS}
  scope=$(systemctl show -p DevicePolicy,DeviceAllow "docker-$id.scope" 2>/dev/null)
  case $scope in
    *DeviceAllow=/dev/char/195:* | *char-nvidia*) devices=kept ;;
    *DevicePolicy=strict* | *DevicePolicy=closed*) devices=lost ;;
    *) devices=kept ;;
  esac
  form="$id $devices $(sees "$id") {{{{.Name}}}} {{{{.Config.Image}}}}"
  timeout 20 docker inspect --format "$form" "$id" 2>/dev/null
done
:"""
"""Sh text that asks running containers whether they see their GPUs, and systemd whether they keep them."""


@dataclass(frozen=True)
class Seen:
    """A running container that was given GPUs.

    :ivar fragile: whether systemd takes them away when it reloads its units.
    :ivar blind: whether it does not see them even now.
    """

    id: str
    name: str
    image: str
    fragile: bool
    blind: bool

    def __str__(self) -> str:
        return f"container {self.name} ({self.image})"


def seen(answer: Output) -> list[Seen]:
    """Read the answer to :data:`LOOK`."""
    rows = (line.split(" ") for line in answer.out.splitlines())
    return [
        Seen(id_, name.removeprefix("/"), image, devices == "lost", sees == "no")
        for id_, devices, sees, name, image in (row for row in rows if len(row) == 5)
    ]


@dataclass(frozen=True)
class GpusInContainers(Resource):
    """Containers that run and have GPUs still see them after all changes up to here.

    :ivar name: tells it from others of its kind.
    """

    name: str
    kind: ClassVar[str] = "gpus-in-containers"

    @property
    def id(self) -> str:
        """``gpus-in-containers:NAME``."""
        return f"{self.kind}:{self.name}"

    @classmethod
    def probe(cls, resources: Sequence[GpusInContainers]) -> Probe:  # noqa: ARG003
        """List running containers with NVIDIA's devices, without a single process."""
        return Probe("gpus-in-containers", f'{_TASKS}\n  echo "$id"\ndone\n:')

    @classmethod
    def states(cls, resources: Sequence[GpusInContainers], answer: Output) -> Mapping[str, tuple[str, ...]]:
        """Ids of these containers, for each resource the same."""
        found = tuple(answer.out.split())
        return {r.id: found for r in resources}

    def change(self, state: tuple[str, ...] | Missing, planned: Planned) -> Change | None:
        """A check, if there are such containers and systemd reloads its units after the last such check."""
        if isinstance(state, Missing) or not state:
            return None
        checks = [i for i, c in enumerate(planned.changes) if c.resource.startswith(f"{self.kind}:")]
        last = checks[-1] + 1 if checks else 0
        if not any(change.resource.startswith(RELOADING) for change in planned.changes[last:]):
            return None
        mark = f'"$run"/{quote(f"gpus-seen-{self.name}")}'
        who = "1 container still sees its" if len(state) == 1 else f"{len(state)} containers still see their"
        return Change(
            resource=self.id,
            action="check",
            summary=f"check that {who} GPUs",
            reason="systemd reloads its units, or dockerd restarts",
            look=f"echo told\n{LOOK}" if checks else LOOK,
            script=f"gpus_are_still_seen && : >{mark}",
            done=f"[ -e {mark} ]",
        )

    def looked(self, change: Change, answer: Output) -> Change:
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
        script = change.script.replace(
            "gpus_are_still_seen", f"gpus_are_still_seen {words(*blind)}".strip(), 1
        )
        return replace(change, impact=() if answer.out.startswith("told\n") else tuple(impact), script=script)
