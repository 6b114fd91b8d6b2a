"""What the running dockerd has loaded of its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from provision.probe import words
from provision.resource import UNKNOWN, Change, Missing, Planned
from provision.resources.dockerd import OfDockerd, Told
from provision.roles.docker.restart import DAEMON
from provision.roles.docker.text import DAEMON_JSON

PLAIN_REGISTRY = re.compile(r"[a-z0-9.-]+(:[0-9]+)?")
"""A registry that dockerd tells as it stands in daemon.json: no scheme, no network."""


@dataclass(frozen=True)
class Loaded:
    """What a running dockerd has read.

    :ivar default: the default runtime.
    :ivar knows: names of all runtimes, and :func:`told_words` of other keys.
    """

    default: str
    knows: frozenset[str]


def declared_words(daemon: Mapping[str, Any]) -> Iterator[str]:
    """Of :func:`told_words`, what a dockerd says that has read these settings."""
    for name in daemon.get("insecure-registries") or ():
        if PLAIN_REGISTRY.fullmatch(str(name)):
            yield f"insecure={name}"
    for address in daemon.get("registry-mirrors") or ():
        yield f"mirror={str(address).removesuffix('/')}"
    for key in ("debug", "live-restore"):
        if isinstance(value := daemon.get(key), bool):
            yield f"{key}={str(value).lower()}"


def told_words(info: Mapping[str, Any]) -> Iterator[str]:
    """What ``/info`` of dockerd says of some keys of daemon.json that it takes over at a reload."""
    # Newer engines say null where there are none.
    match info.get("RegistryConfig"):
        case {"IndexConfigs": {**indexes}}:
            yield from (f"insecure={name}" for name, index in indexes.items() if not _is_secure(index))
    match info.get("RegistryConfig"):
        case {"Mirrors": [*mirrors]}:
            yield from (f"mirror={str(address).removesuffix('/')}" for address in mirrors)
    for key, name in (("debug", "Debug"), ("live-restore", "LiveRestoreEnabled")):
        if isinstance(value := info.get(name), bool):
            yield f"{key}={str(value).lower()}"


def _is_secure(index: Any) -> bool:
    return not isinstance(index, Mapping) or index.get("Secure") is not False


@dataclass(frozen=True)
class DaemonLoaded(OfDockerd[Loaded | Missing]):
    """The running dockerd knows these runtimes and registries, and uses this runtime by default.

    What is on disk counts for nothing until dockerd has read it. So this asks dockerd, where it has not
    started since the file last changed.
    """

    default_runtime: str
    runtimes: tuple[str, ...]
    others: tuple[str, ...] = ()
    kind: ClassVar[str] = "daemon-loaded"
    read_from: ClassVar[str] = DAEMON_JSON
    shell = (DAEMON,)

    @property
    def id(self) -> str:
        return "docker:loaded-configuration"

    @property
    def places(self) -> tuple[str, ...]:
        return ("/info",)

    def seen(self, *told: Told) -> Loaded | Missing:
        info = told[0].document
        if told[0].status != 200 or not info.get("DefaultRuntime"):
            return UNKNOWN
        return Loaded(str(info["DefaultRuntime"]), told[0].strings("Runtimes") | {*told_words(info)})

    def bare(self) -> Missing:
        return UNKNOWN

    def change(self, state: Loaded | Missing, planned: Planned) -> Change | None:
        """Reload dockerd where it runs with something else and nothing in the plan reloads it anyway."""
        if isinstance(state, Missing) or planned.positions(
            (
                "service:docker.service:start",
                "handler:restart docker.service",
                "handler:reload docker.service",
            )
        ):
            return None
        wanted = (*self.runtimes, *self.others)
        if state.default == self.default_runtime and state.knows.issuperset(wanted):
            return None
        runtimes = ", ".join(sorted(word for word in state.knows if "=" not in word))
        unread = [word for word in self.others if word not in state.knows]
        return Change(
            resource=self.id,
            action="reload",
            summary="reload docker.service (running containers are not touched)",
            reason=f"dockerd runs without {', '.join(unread)}, which {DAEMON_JSON} has"
            if unread
            else f"dockerd runs with default runtime {state.default} and knows {runtimes}",
            done=f"docker_knows {words(self.default_runtime, *wanted)}",
            script=f"reload_docker {words(self.default_runtime, *self.runtimes)}",
        )
