"""NVIDIA Container Toolkit: what lets containers see the GPUs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from provision.facts import Facts, Family
from provision.gpu.advisories import TOOLKIT, warning
from provision.resource import AnyResource, Handler
from provision.resources.file import File
from provision.resources.packages.other_sources import OtherSources
from provision.resources.packages.public import Mirror, public_repository
from provision.resources.packages.repository import (
    Repo,
    package_resource,
    package_source,
    repository,
    require_family,
)
from provision.resources.packages.sets import Package, moves_of
from provision.resources.signals import DRIVER_LOADED, DRIVER_MOVED, TOOLKIT_INSTALLED
from provision.role import ImpossibleError, Role, Settings
from provision.roles.toolkit.cdi import REFRESH, CdiSpecs
from provision.roles.toolkit.config import ConfigToml
from provision.roles.toolkit.config_keys import Value, flat, wrong

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
"""All four at one version, or apt mixes releases (NVIDIA's installation guide)."""

REPOSITORY = "https://nvidia.github.io/libnvidia-container/stable"
KEY = ("toolkit/nvidia_container_toolkit.asc", "C95B321B61E88C1809C4F759DDCAE044F796ECB0")
"""NVIDIA's repository, and its key as a template with its fingerprint (installation guide)."""

FIRST_SAFE = "1.19.1"
"""First version without a known container escape (NVIDIA security bulletin 5850, June 2026)."""

OLD_SOURCES = (
    "nvidia-docker",
    "nvidia-container-runtime",
    "libnvidia-container",
    "libnvidia-container-experimental",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-experimental",
)
"""Names of the files of sources that NVIDIA's instructions of different years made."""

OLD_REPOSITORIES = ("nvidia-docker", "nvidia-container-runtime", "libnvidia-container")
"""Folders in the addresses of NVIDIA's repositories, and of mirrors that keep their layout."""

MODE = "nvidia-container-runtime.mode"
NO_CGROUPS = "nvidia-container-cli.no-cgroups"
LDCONFIG = "nvidia-container-cli.ldconfig"
HOOK_RUNS = "nvidia-container-runtime-hook.skip-mode-detection"


class ToolkitSettings(Settings):
    """Settings under ``toolkit:``."""

    version: str | None = Field(default=None, pattern=r"^[0-9][A-Za-z0-9.+~:-]*$", examples=["1.20.0-1"])
    """Exact version of all packages as they have it. Null: the newest, which then stays; an installed one of
    1.19.1 or later stays too, and older ones have known container escapes (CVE-2026-24260)."""
    mirror: Mirror | None = None
    """The site's copies of public repositories; where it is left out, the host's variable ``mirror``."""
    repo: Repo | None = None
    """Another repository with the packages, in place of NVIDIA's own and of the mirror."""
    hold: bool = True
    """Keep upgrades of the system from moving the packages."""
    config: dict[str, Any] = {}
    """Keys of config.toml, as tables or by dotted name (``nvidia-container-runtime.log-level: debug``)."""
    cdi: bool = True
    """Keep the CDI spec of the GPUs right; false: leave it alone."""
    other_cdi_specs: Literal["keep", "remove"] = "keep"
    """CDI specs of the GPUs that others made: named in the plan (``keep``), or moved into the backups."""

    @model_validator(mode="after")
    def _config_can_be_meant(self) -> ToolkitSettings:
        try:
            keys = flat(self.config)
        except ValueError as error:
            raise ImpossibleError(f"config: {error}", hint="name each key once") from error
        for key, value in keys.items():
            if fault := wrong(key, value):
                raise ImpossibleError(*fault)
        _no_trap(keys)
        return self


def _no_trap(keys: dict[str, Value]) -> None:
    """Refuse values that are taken by the toolkit and break containers later."""
    mode = keys.get(MODE, "auto")
    if mode in ("cdi", "jit-cdi") and not keys.get(HOOK_RUNS):
        raise ImpossibleError(
            f"{MODE} {mode} makes docker run --gpus fail wherever Docker itself serves it (runtime runc)",
            hint=f"auto makes CDI edits too and keeps --gpus working; or set {HOOK_RUNS}: true beside it",
        )
    if keys.get(NO_CGROUPS):
        raise ImpossibleError(
            f"{NO_CGROUPS} true leaves containers of rootful Docker without access to the GPUs",
            hint="it is for rootless engines only; leave it out",
        )
    ldconfig = keys.get(LDCONFIG, "@")
    if not str(ldconfig).startswith("@") and not keys.get("features.allow-ldconfig-from-container"):
        raise ImpossibleError(
            f"{LDCONFIG} {ldconfig} is a program of the container, which the toolkit does not run",
            hint=f"a program of the host has an @ before it: @{ldconfig}",
        )


def declared(settings: ToolkitSettings, facts: Facts) -> dict[str, Value]:
    """What must hold of config.toml on a host: what its system needs, and the settings over it."""
    # On Ubuntu /sbin/ldconfig is a wrapper of the program.
    ldconfig = "@/sbin/ldconfig.real" if facts.os == "ubuntu" else "@/sbin/ldconfig"
    return {MODE: "auto", NO_CGROUPS: False, LDCONFIG: ldconfig, **flat(settings.config)}


def resources(settings: ToolkitSettings, facts: Facts) -> list[AnyResource]:
    """No other source, repository, pin, config.toml, packages, and the CDI spec when all that is there."""
    family = require_family(facts, "toolkit")
    packages = tuple(Package(name, settings.version, least=FIRST_SAFE) for name in PACKAGES)
    pin = f"Package: {' '.join(PACKAGES)}\nPin: version {settings.version or '*'}\nPin-Priority: 1000\n"
    return [
        *_sources(source_of(settings, facts), facts, family),
        *([File("/etc/apt/preferences.d/provision-toolkit", pin.encode())] if family == "debian" else ()),
        ConfigToml(declared(settings, facts)),
        package_resource(
            facts,
            "toolkit",
            packages,
            hold=settings.hold,
            remarks=tuple(filter(None, [settings.version and warning(TOOLKIT, settings.version)])),
            signals=(("install", TOOLKIT_INSTALLED),),
        ),
        *(_cdi(settings) if settings.cdi and facts.gpus else ()),
    ]


def source_of(settings: ToolkitSettings, facts: Facts) -> Repo:
    """The site's repository, its copy of NVIDIA's, or that, whose key has signed the metadata for dnf too."""
    if settings.repo:
        return settings.repo
    kind = "rpm" if facts.family == "rhel" else "deb"
    address = f"{REPOSITORY}/{kind}/{facts.machine if kind == 'rpm' else facts.architecture}/"
    return public_repository(address, *KEY, settings.mirror, signed="metadata")


def _sources(repo: Repo, facts: Facts, family: Family) -> list[AnyResource]:
    """The repository, in the place of every other one that brings the same packages."""
    others = OtherSources(
        name="toolkit",
        family=family,
        uri=repo.uri,
        suite=repo.suite,
        architecture=facts.architecture or facts.machine,
        own=tuple(file.path for file in package_source(repo, facts)),
        parts=OLD_REPOSITORIES,
        files=OLD_SOURCES,
    )
    return [*repository(repo, facts), others]


def _cdi(settings: ToolkitSettings) -> list[AnyResource]:
    """The spec is made anew after what it describes has changed, and wherever it is not right."""
    base = moves_of(("nvidia-container-toolkit-base",))
    return [
        CdiSpecs("others", remove=settings.other_cdi_specs == "remove"),
        Handler(
            REFRESH, on=(DRIVER_MOVED, DRIVER_LOADED, *base), script="refresh_cdi_spec", shell=CdiSpecs.shell
        ),
        CdiSpecs("generated"),
    ]


ROLE = Role(
    "toolkit",
    ToolkitSettings,
    resources,
    order=20,
    shared=("mirror",),
    needs=("driver",),
    example={"cdi": True},
)
