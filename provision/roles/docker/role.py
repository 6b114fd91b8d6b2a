"""Docker Engine with the NVIDIA runtime as its default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from provision.errors import Refusal
from provision.facts import Facts
from provision.probe import words
from provision.resource import AnyResource, Handler
from provision.resources.gpus_in_containers import GpusInContainers
from provision.resources.packages.public import Mirror, public_repository, public_rpm_repository
from provision.resources.packages.repository import (
    Repo,
    SignedRepo,
    package_resource,
    repository,
    require_family,
)
from provision.resources.packages.sets import Package, moves_of
from provision.resources.signals import DOCKER_MOVED, DOCKER_RESTARTED, TOOLKIT_INSTALLED
from provision.role import ImpossibleError, Role, Settings
from provision.roles.docker.containerd import ContainerdService
from provision.roles.docker.daemon import DaemonLoaded, declared_words
from provision.roles.docker.daemon_json import RELOAD, RESTART, DaemonJson
from provision.roles.docker.daemon_options import problem
from provision.roles.docker.engine import ENGINES, Engine
from provision.roles.docker.removal import OwnersDaemonJson
from provision.roles.docker.restart import DAEMON, DockerRestart, DockerService, DockerSocket
from provision.roles.docker.text import DAEMON_JSON

PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
PackageVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+~:-]*\*?$")]

REPOSITORIES = "https://download.docker.com/linux"
KEY = ("docker/docker_ce.asc", "9DC858229FC7DD38854AE2D88D81803C0EBFCD88")
"""Docker's repositories, and the key of those for apt, as a template with its fingerprint."""

KEY_FOR_DNF = (f"{REPOSITORIES}/rhel/gpg", "060A61C51B558A7F742B77AAC52FEB6B621E9F35")
"""Address and fingerprint of the key of the repositories for dnf ("Install Docker Engine on RHEL")."""

DOCKERS = ("docker-ce", "docker-ce-cli", "containerd.io")
"""The engine in Docker's repository, the same for apt and dnf ("Install Docker Engine")."""


class DockerSettings(Settings):
    """Settings under ``docker:``."""

    source: Literal["auto", "archive", "docker", "none"] = "auto"
    """``archive``: the distribution's engine; ``docker``: that of Docker's repository, or a copy of it;
    ``auto``: the first that the system has; ``none``: the engine that is there is configured and otherwise
    left alone."""
    packages: dict[PackageName, PackageVersion | None] | None = Field(
        default=None, examples=[{"docker.io": "20.10.*"}]
    )
    """Packages of the engine and the version of each (``20.10.*``) or null for any; null: the source's."""
    mirror: Mirror | None = None
    """The site's copies of public repositories; where it is left out, the host's variable ``mirror``."""
    repo: Repo | None = None
    """Another repository for ``source: docker``, in place of Docker's own and of the mirror."""
    default_runtime: Literal["nvidia", "runc"] = "nvidia"
    """``nvidia``: every container whose image asks for GPUs gets them, with or without ``--gpus``."""
    daemon: dict[str, Any] = Field(default={})
    """Further keys of daemon.json, as dockerd has them. Objects are merged with those of the host, all
    else is replaced. Keys that were never named here stay; one that no longer is gets back what it had."""
    restart: Literal["allowed", "when-idle"] = "when-idle"
    """``when-idle``: a restart of dockerd that would stop containers is not done; ``allowed``: it is."""
    hold: bool = False
    """Keep upgrades of the system from moving the packages."""

    @field_validator("daemon")
    @classmethod
    def _dockerd_takes_them(cls, daemon: dict[str, Any]) -> dict[str, Any]:
        if "default-runtime" in daemon:
            raise ImpossibleError(
                "default-runtime has a setting of its own", hint="use docker.default_runtime: nvidia or runc"
            )
        found = [
            InitErrorDetails(
                type="value_error",
                loc=loc,
                input=value,
                ctx={"error": ImpossibleError(says, "dockerd's reference lists the keys of daemon.json")},
            )
            for loc, value, says in _problems(daemon)
        ]
        if found:
            raise ValidationError.from_exception_data("daemon", found)
        # dockerd takes null for a key that is not there.
        return {key: value for key, value in daemon.items() if value is not None}

    @model_validator(mode="after")
    def _go_together(self) -> DockerSettings:
        if self.source in ("archive", "none") and self.repo:
            raise ImpossibleError(
                f"source {self.source} with a repo", hint="source: docker takes the engine from a repo"
            )
        if self.source == "none" and self.packages:
            raise ImpossibleError(
                "source none with packages",
                hint="none leaves the engine alone; archive or docker installs one",
            )
        return self


def _problems(daemon: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """Where in ``daemon`` there is a value that no dockerd takes, the value, and why."""
    for key, value in daemon.items():
        if says := problem(key, value):
            yield (key,), value, says
    options = daemon.get("log-opts")
    for key, value in options.items() if isinstance(options, dict) else ():
        if not isinstance(value, str):
            yield ("log-opts", key), value, "dockerd wants text for options of logs: quote it"


ALONG = ("containerd", "docker-cli", "runc")
"""Packages that come with Debian's engine, and without whose files it starts no container."""


def packages_of(settings: DockerSettings, facts: Facts) -> dict[str, str | None]:
    """The packages of the engine, and the version of each or None.

    :raises Refusal: where the distribution has none of its own.
    """
    if settings.source == "none":
        return {}
    if settings.packages is not None:
        return dict(settings.packages)
    if _from_docker(settings, facts):
        return dict.fromkeys(DOCKERS)
    if facts.family == "rhel":
        raise Refusal(f"{facts.system} has no Docker Engine of its own", hint="docker.source: docker")
    # From 13 on, the client is a package of its own (Debian, docker.io 26.1.5, Recommends).
    split = facts.os == "debian" and facts.major.isdigit() and int(facts.major) >= 13
    return dict.fromkeys(("docker.io", *(["docker-cli"] if split else []), "tini"))


def _from_docker(settings: DockerSettings, facts: Facts) -> bool:
    """Whether the engine comes from Docker's repository, or the one that the settings name."""
    by_choice = settings.source == "docker" or settings.repo is not None
    return by_choice or (settings.source == "auto" and facts.family == "rhel")


def source_of(settings: DockerSettings, facts: Facts) -> SignedRepo:
    """The repository of ``source: docker``: the site's, its copy of Docker's own, or that."""
    if settings.repo:
        return settings.repo
    if facts.family == "debian":
        address, suite = f"{REPOSITORIES}/{facts.os}", facts.codename
        return public_repository(address, *KEY, settings.mirror, suite=suite, components=("stable",))
    address = f"{REPOSITORIES}/rhel/{facts.major}/{facts.machine}/stable"
    return public_rpm_repository(address, *KEY_FOR_DNF, settings.mirror)


def _source(settings: DockerSettings, facts: Facts) -> list[AnyResource]:
    moved = () if settings.repo else ("download.docker.com/linux",)
    return repository(source_of(settings, facts), facts, moved)


def engine_of(settings: DockerSettings, facts: Facts) -> Engine:
    """The engine that a host may have.

    :raises Refusal: where the distribution has none of its own.
    """
    return Engine(tuple(name for name in packages_of(settings, facts) if name in ENGINES))


def daemon_of(settings: DockerSettings, facts: Facts) -> DaemonJson:
    """daemon.json with the keys of the settings, and the NVIDIA runtime where containers may want it.

    A host without GPUs whose default runtime is runc has no toolkit, which would bring its program.
    """
    path = "nvidia-container-runtime"
    daemon = {**settings.daemon, "default-runtime": settings.default_runtime}
    if settings.default_runtime != "nvidia" and not facts.gpus:
        return DaemonJson(daemon)
    daemon["runtimes"] = {"nvidia": {"path": path}, **(settings.daemon.get("runtimes") or {})}
    # Arguments that somebody gave the runtime stay; a new one is as nvidia-ctk makes it.
    return DaemonJson(daemon, initial={("runtimes", "nvidia"): {"args": [], "path": path}})


def resources(settings: DockerSettings, facts: Facts) -> list[AnyResource]:
    """daemon.json first, so that a fresh dockerd starts with it; then the engine, running with it."""
    require_family(facts, "docker")
    packages = tuple(Package(name, version) for name, version in packages_of(settings, facts).items())
    daemon = daemon_of(settings, facts)
    runtimes = tuple(daemon.declared.get("runtimes") or ())
    installed = package_resource(
        facts,
        "docker",
        packages,
        hold=settings.hold,
        signals=(("", DOCKER_MOVED),),
        along=ALONG,
    )
    return [
        engine_of(settings, facts),
        *(_source(settings, facts) if _from_docker(settings, facts) else ()),
        DockerSocket(),
        daemon,
        *([installed] if packages else ()),
        DockerService(runtimes=(settings.default_runtime, *runtimes)),
        ContainerdService(),
        *_handlers(settings, runtimes, moves=bool(packages)),
        DaemonLoaded(settings.default_runtime, runtimes, tuple(declared_words(daemon.declared))),
        GpusInContainers("docker"),
    ]


def _handlers(settings: DockerSettings, runtimes: tuple[str, ...], *, moves: bool) -> list[AnyResource]:
    """What makes a running dockerd take over what has changed; ``moves`` if its packages may."""
    knows = words(settings.default_runtime, *runtimes)
    allowed = settings.restart == "allowed"
    started = ("service:docker.service:start", *moves_of(ENGINES, ("install",)))
    adopt = DockerRestart(
        "run the new Docker Engine",
        on=moves_of(ENGINES, ("upgrade", "downgrade", "repair")),
        script=f"adopt_docker {knows}",
        covered_by=started,
        allowed=allowed,
        holds_back=("packages:docker",),
    )
    # dockerd looks for the toolkit's hook only when it starts (moby, daemon/nvidia_linux.go).
    restart = DockerRestart(
        "restart docker.service",
        on=(TOOLKIT_INSTALLED, RESTART),
        script=f"restart_docker {knows}",
        covered_by=started,
        allowed=allowed,
        holds_back=(f"file:{DAEMON_JSON}",),
        signals=(DOCKER_RESTARTED,),
        reloads_systemd=True,
    )
    reload = Handler(  # its shell names files
        "reload docker.service",
        on=(RELOAD,),
        script=f"reload_docker {knows}",
        covered_by=started,
        shell=(DAEMON,),
    )
    # What a reload can do does not wait for the permission that a restart may need.
    return [*([adopt] if moves else ()), reload, restart]


EXAMPLE = {"daemon": {"log-driver": "local"}}

ROLE = Role(
    "docker",
    DockerSettings,
    resources,
    order=30,
    shared=("mirror",),
    needs=("toolkit",),
    removal=lambda: [OwnersDaemonJson()],
    example=EXAMPLE,
)
