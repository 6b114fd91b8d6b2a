"""Starting and restarting dockerd: who notices it, who has to allow it, and what if it does not come up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import OWED, Change, Handler, Missing, Planned
from provision.resources.service import Service, UnitState

PID = "/run/docker.pid"
"""Written by dockerd when it starts."""

LIVE_RESTORE = "docker:live-restore"
"""Signal of a change after which containers outlive dockerd."""

_LOOK = r"""systemctl is-active --quiet docker.service || exit 0
echo active
for unit in $(systemctl show -p ConsistsOf --value docker.service); do
  case $unit in *.service) if systemctl is-active --quiet -- "$unit"; then echo "unit $unit"; fi ;; esac
done
if live=$(timeout 20 docker info --format '{{.LiveRestoreEnabled}}' 2>/dev/null) && [ -n "$live" ]; then
  echo "live-restore $live"
  form='{{.Name}} {{.Config.Image}} {{or .HostConfig.RestartPolicy.Name "no"}}'
  docker ps --quiet --no-trunc | xargs -r timeout 60 docker inspect --format \
    "container $form "'{{index .Config.Labels "provision.instance"}}'
else
  for task in /run/containerd/io.containerd.runtime.v2.task/moby/* \
    /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*; do
    if [ -d "$task" ]; then echo "unknown ${task##*/}"; fi
  done
fi
:"""


@dataclass(frozen=True)
class DockerService(Service):
    """docker.service, enabled and running with the daemon.json that is there.

    If dockerd does not start with a new daemon.json, the previous one is put back.

    :ivar runtimes: the default runtime, and all runtimes that dockerd has to know.
    """

    unit: str = "docker.service"
    runtimes: tuple[str, ...] = ()
    kind: ClassVar[str] = "docker-service"

    @classmethod
    def probe(cls, resources: Sequence[Service]) -> Probe:
        """As of any service."""
        return Probe("docker-service", Service.probe(resources).script)

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:
        """Enable and start it where it is not.

        :raises Refusal: if somebody masked it.
        """
        change = super().change(state, planned)
        if change is None or change.action != "start":
            return change and replace(change, script=f"enable_unit {quote(self.unit)}")
        return replace(
            change,
            script=f"enable_unit {quote(self.unit)} && start_docker {words(*self.runtimes)}",
            done=f"{change.done} && daemon_json_is_proven",
        )


@dataclass(frozen=True)
class DockerRestart(Handler):
    """A restart of dockerd. One that stops containers is done only with permission.

    :ivar allowed: whether the settings allow it.
    :ivar holds_back: ids of causes that are not begun if the restart may not follow.
    """

    allowed: bool = False
    holds_back: tuple[str, ...] = ()
    kind: ClassVar[str] = "docker-restart"

    @classmethod
    def probe(cls, resources: Sequence[Handler]) -> Probe:  # noqa: ARG003
        """List the notes that are younger than the running dockerd: its start settled the others."""
        return Probe(
            "docker-restart",
            f"cd {quote(OWED)} 2>/dev/null || exit 0\n"
            f"if [ -e {PID} ]; then find * -prune -newer {PID} 2>/dev/null; else ls; fi\n:",
        )

    def change(self, state: bool, planned: Planned) -> Change | None:
        """As of any handler; with a look at what it would stop."""
        change = super().change(state, planned)
        if change is None:
            return None
        rewritten = planned.positions(("file:/etc/docker/daemon.json",))
        outlive = "as now"
        if rewritten:
            outlive = "yes" if planned.positions((LIVE_RESTORE,)) else "no"
        causes = {planned.at(index).resource for index in planned.positions(self.on)}
        return replace(
            change,
            script=f"outlive={quote(outlive)}\nallowed={'yes' if self.allowed else 'no'}\n{self.script}",
            causes=tuple(name for name in self.holds_back if name in causes),
            look=f"echo {quote(f'outlive {outlive}')}\n{_LOOK}",
        )

    def looked(self, change: Change, answer: Output) -> Change:
        """Name what stops, and ask for permission if anything does."""
        found = _answer(answer.out)
        if "active" not in found:
            return change
        kept, stopping = _effects(found)
        return replace(
            change,
            impact=(*stopping, *kept),
            needs="docker-restart" if stopping and not self.allowed else "",
        )


def _answer(text: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def _effects(found: Mapping[str, list[str]]) -> tuple[list[str], list[str]]:
    """What goes on during the restart, and what stops."""
    outlive = "".join(found.get("outlive", ()))
    outlives = outlive == "yes" or (outlive == "as now" and found.get("live-restore") == ["true"])
    units = found.get("unit", [])
    kept, stopping = [], []
    for line in found.get("container", ()):
        name, image, policy, instance = (line.removeprefix("/").split(" ") + [""] * 4)[:4]
        unit = f"triton@{instance}.service"
        container = f"container {name} ({image})"
        if instance and unit in units:
            stopping.append(f"{container} stops, and {unit} starts it again")
            units = [other for other in units if other != unit]
        elif outlives:
            kept.append(f"{container} keeps running (live-restore)")
        elif policy in ("always", "unless-stopped"):
            stopping.append(f"{container} stops, and Docker starts it again")
        else:
            stopping.append(f"{container} stops, and stays stopped")
    stopping += [f"{unit} is restarted, as it is part of docker.service" for unit in units]
    if not outlives:
        stopping += [
            f"container {name[:12]} stops (dockerd does not answer)" for name in found.get("unknown", ())
        ]
    return kept, stopping
