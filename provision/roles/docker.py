"""Docker Engine with the NVIDIA runtime as its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from provision.command import quote
from provision.facts import Facts
from provision.resources.base import Resource
from provision.resources.docker import DaemonJson, DaemonLoaded
from provision.resources.handler import Handler
from provision.resources.package import Package, Packages
from provision.resources.service import Service
from provision.roles.base import Repo, Role, Settings, apt_source, require_apt
from provision.roles.toolkit import PACKAGES as TOOLKIT

ENGINES = ("docker.io", "docker-ce", "moby-engine")
"""Packages that bring dockerd, and start it when they are installed."""

PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
PackageVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+~:-]*\*?$")]


class DockerSettings(Settings):
    """Settings under ``docker:``."""

    packages: dict[PackageName, PackageVersion | None] = Field(default={"docker.io": None, "tini": None})
    """Packages of the engine and the version of each (``20.10.*``) or null for any; empty: it is there."""
    repo: Repo | None = None
    """A repository for these packages, if it is not the distribution's own."""
    default_runtime: Literal["nvidia", "runc"] = "nvidia"
    """``nvidia``: every container whose image asks for GPUs gets them, with or without ``--gpus``."""
    daemon: dict[str, Any] = Field(default={})
    """Further keys of daemon.json, as dockerd documents them; keys not named here stay as they are."""
    hold: bool = False
    """Keep upgrades of the system from moving the packages."""


def resources(settings: DockerSettings, facts: Facts) -> list[Resource]:
    """daemon.json first, so that a fresh dockerd starts with it; then the engine, running with it."""
    require_apt(facts, "docker")
    wanted: dict[str, Any] = {
        **settings.daemon,
        "default-runtime": settings.default_runtime,
        "runtimes": {
            "nvidia": {"args": [], "path": "nvidia-container-runtime"},
            **settings.daemon.get("runtimes", {}),
        },
    }
    packages = tuple(Package(name, version) for name, version in settings.packages.items())
    runtimes = tuple(wanted["runtimes"])
    started = ("service:docker.service:start", *(f"package:{name}:install" for name in ENGINES))
    return [
        *(apt_source(settings.repo, facts) if settings.repo else ()),
        DaemonJson(wanted),
        *([Packages("docker", packages, hold=settings.hold)] if packages else ()),
        Service("docker.service"),
        # dockerd looks for the toolkit's hook only when it starts (moby, daemon/nvidia_linux.go).
        Handler(
            "restart docker.service",
            on=(*(f"package:{name}:install" for name in TOOLKIT), "docker:restart"),
            script=f"restart_unit docker.service 120 && wait_until 30 docker_knows"
            f" {settings.default_runtime} {' '.join(map(quote, runtimes))}",
            covered_by=started,
        ),
        Handler(
            "reload docker.service",
            on=("docker:reload",),
            script=f"reload_docker {settings.default_runtime} {' '.join(map(quote, runtimes))}",
            covered_by=(*started, "handler:restart docker.service"),
        ),
        DaemonLoaded(settings.default_runtime, runtimes),
    ]


ROLE = Role("docker", 30, DockerSettings, resources)
