"""Triton Inference Server: one systemd unit an instance, with its GPUs, ports and gates."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from provision.errors import Refusal
from provision.facts import Facts
from provision.probe import words
from provision.render import render
from provision.resource import AnyResource, Handler
from provision.resources.file import Directory, File
from provision.resources.gpus_in_containers import CONTAINERS, GpusInContainers
from provision.resources.image import Archives, Image, RegistryLogin, archive_of, registry_of
from provision.resources.other_units import UNITS, NoOtherUnits
from provision.resources.signals import DOCKER_MOVED, DOCKER_RESTARTED
from provision.role import ImpossibleError, Role, Settings
from provision.roles.triton import http, launch
from provision.roles.triton.canaries import Canary
from provision.roles.triton.driver_answers import DriverAnswers, OnGpus
from provision.roles.triton.fits_driver import FitsDriver, Serving, refuse_unfit
from provision.roles.triton.instance import STEERING, Instance
from provision.roles.triton.launch import CANARY_MODEL, selection_of
from provision.roles.triton.repository import ModelRepository
from provision.roles.triton.rollback import BESIDE, ENVIRONMENT, STARTED, EnvironmentFile, bring_up
from provision.roles.triton.running import RunningCommand, RunningImage
from provision.roles.triton.server import (
    INSTANCES,
    Server,
    ServerHandler,
    ServerRestart,
    UnitFile,
)
from provision.roles.triton.unit import command_of, command_signal
from provision.shell import constant

HANDLERS = ("handler:restart", "handler:wait for")
"""What the ids of the handlers of an instance begin with."""

GATE = constant(INSTANCES, "gpu_gate")
MOUNTS_GATE = "/usr/local/lib/provision/triton-mounts"
READY = "/usr/local/lib/provision/triton-wait-ready"
ASKS = "/usr/local/lib/provision/triton-canary"
CANARY = constant(STARTED, "canary_folder")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
Registry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?$")]


class TritonSettings(Settings):
    """Settings under ``triton:``."""

    instances: dict[Name, Instance | None] = Field(default={})
    """The servers of the host by name. Null: not on this host, whatever its groups say."""

    registry_logins: dict[Registry, RegistryLogin] = Field(default={})
    """Who pulls from a registry, by its name as it stands in ``image:``; ``docker.io`` where none does. A
    registry that is not named here is asked as root's own Docker client on the host asks it."""

    images: Archives | None = Field(default=None, examples=["/srv/images"])
    """Folder of the host, or http(s) address, with archives of images, ``NAME-TAG.tar``, also ``.tar.gz`` and
    ``.tar.zst``. Null: images come from their registries alone."""

    @property
    def servers(self) -> dict[str, Instance]:
        """The instances that the host is to have."""
        return {name: instance for name, instance in self.instances.items() if instance}

    @model_validator(mode="after")
    def _ports_differ(self) -> TritonSettings:
        taken: dict[int, str] = {}
        for name, instance in self.servers.items():
            for setting, port in instance.ports.items():
                if port in taken:
                    raise ImpossibleError(
                        f"port {port} is both {taken[port]} and {name}.{setting}",
                        hint="give every instance its own http_port, grpc_port and metrics_port",
                        at=("instances", name, setting),
                    )
                taken[port] = f"{name}.{setting}"
        return self


def unit_of(name: str) -> str:
    """The systemd unit of an instance."""
    return f"triton@{name}.service"


def container_of(name: str) -> str:
    """The container of an instance; Docker's names cannot hold the unit's ``@``."""
    return f"triton-{name}"


def unit_file(name: str) -> str:
    """Where the unit of an instance lies."""
    return f"{UNITS}/{unit_of(name)}"


def environment_file(name: str) -> str:
    """Where the environment of an instance lies."""
    return ENVIRONMENT.format(name)


def models_of(name: str, instance: Instance) -> str:
    """Model repository of an instance on the host."""
    return instance.models or f"/srv/triton/{name}/models"


def resources(settings: TritonSettings, facts: Facts) -> list[AnyResource]:
    """Images; what all share, the files of each, a reload of systemd, then each server; no other instance.

    Images come first, so that a pull that fails leaves all servers as they are, and able to start again.
    Instances that the settings no longer name come last, when those that may take their place are up.
    """
    serving = tuple(serving_of(name, instance, facts) for name, instance in settings.servers.items())
    refuse_unfit(serving, facts.declared_driver)
    others = NoOtherUnits("triton", tuple(map(unit_of, settings.servers)), beside=BESIDE)
    if not settings.servers:
        return [others, GpusInContainers("triton")]
    found: list[AnyResource] = [
        Image(image, settings.registry_logins.get(registry_of(image)), archive_of(image, settings.images))
        for image in dict.fromkeys(server.image for server in settings.servers.values())
    ]
    servers = settings.servers.values()
    found += _shared(any(one.canary for one in servers), any(one.canaries for one in servers))
    for name, instance in settings.servers.items():
        if instance.gpus != "none" and not facts.gpus:
            raise Refusal(
                f"triton instance {name} wants GPUs, and there is none on the PCI bus",
                hint="gpus: none serves on the CPU",
            )
        found += _files(name, instance, len(facts.gpus))
    units = tuple(f"file:{unit_file(name)}" for name in settings.servers)
    found.append(Handler("reload systemd", on=units, script="systemctl daemon-reload", reloads_systemd=True))
    for name, instance in settings.servers.items():
        found += _server(name, instance, len(facts.gpus))
    answers = [DriverAnswers(on_gpus)] if (on_gpus := _on_gpus(settings)) else []
    fits = FitsDriver(serving, facts.declared_driver)
    return [*found, others, GpusInContainers("triton"), fits, *answers]


def _on_gpus(settings: TritonSettings) -> tuple[OnGpus, ...]:
    """The instances with GPUs, and what stops one that is up."""
    return tuple(
        OnGpus(
            unit,
            selection,
            (*(f"{begin} {unit}" for begin in HANDLERS), f"command:{unit}", f"image-of:{unit}:restart"),
        )
        for name, instance in settings.servers.items()
        if (unit := unit_of(name)) and (selection := selection_of(instance)) != "none"
    )


def serving_of(name: str, instance: Instance, facts: Facts) -> Serving:
    """What an instance is to serve with; a list with UUIDs may mean any GPU."""
    devices = tuple(gpu.device for gpu in facts.gpus) if instance.gpus != "none" else ()
    if isinstance(instance.gpus, list):
        indexes = [gpu for gpu in instance.gpus if isinstance(gpu, int) and gpu < len(devices)]
        if len(indexes) == len(instance.gpus):
            devices = tuple(devices[index] for index in indexes)
    changed_by = (Image(instance.image).id, f"file:{unit_file(name)}")
    return Serving(unit_of(name), instance.image, devices, instance.address, changed_by)


@functools.cache
def _shared(canary: bool, asks: bool) -> tuple[AnyResource, ...]:
    gates = (
        File(GATE, render("triton/gpu-gate.j2").encode(), mode="0755"),
        File(MOUNTS_GATE, render("triton/mounts-gate.j2").encode(), mode="0755"),
        File(READY, render("triton/wait-ready.j2").encode(), mode="0755"),
        *([File(ASKS, render("triton/canary-gate.j2").encode(), mode="0755")] if asks else []),
    )
    if not canary:
        return gates
    folder = f"{CANARY}/{CANARY_MODEL}"
    return (
        *gates,
        File(f"{folder}/config.pbtxt", render("triton/canary.pbtxt.j2", name=CANARY_MODEL).encode()),
        File(f"{folder}/1/model.py", render("triton/canary.py.j2").encode()),
    )


def _files(name: str, instance: Instance, gpus: int) -> Iterator[AnyResource]:
    secret = {key: value for key, value in instance.env.items() if not STEERING.fullmatch(key)}
    environment = render("triton/env.j2", env=secret).encode()
    yield Directory(models_of(name, instance), keep_mode=True)
    kept = unit_of(name) if instance.rollback else ""
    yield EnvironmentFile(environment_file(name), environment, mode="0600", sensitive=True, kept=kept)
    yield UnitFile(
        unit_file(name),
        _unit(name, instance, gpus).encode(),
        unit=unit_of(name),
        kept=kept,
        address=instance.address,
        ports=tuple(instance.ports.items()),
        selection=selection_of(instance),
        gpus=gpus,
        ranks=instance.world_size,
        injection=instance.injection,
        beside=f"file:{environment_file(name)}",
    )


def _server(name: str, instance: Instance, gpus: int) -> Iterator[AnyResource]:
    unit, seconds = unit_of(name), launch.start_timeout_of(instance) + 30
    ports = tuple(instance.ports.values())
    files = tuple(f"file:{environment_file(name)}:{action}" for action in ("create", "update"))
    if instance.canary:
        files += tuple(f"file:{CANARY}/{CANARY_MODEL}/{part}" for part in ("config.pbtxt", "1/model.py"))
    yield Server(
        unit,
        timeout=seconds,
        reads=(*files, f"file:{unit_file(name)}"),
        file=unit_file(name),
        address=instance.address,
        ports=tuple(instance.ports.items()),
        rollback=instance.rollback,
    )
    # Both restart it if that is owed.
    comes_up = (f"service:{unit}:start", f"service:{unit}:await")
    waits = f"wait for {unit}"
    restart = ServerRestart(
        f"restart {unit}",
        # The container keeps the folder that it was started with, though it is there no more.
        on=(*files, f"{Directory(models_of(name, instance)).id}:create", command_signal(unit)),
        script=bring_up("restart_unit", unit, seconds, ports, rollback=instance.rollback),
        covered_by=comes_up,
        unit=unit,
        seconds=seconds,
        ports=ports,
        rollback=instance.rollback,
    )
    yield restart
    yield RunningCommand(restart, tuple(command_of(_unit(name, instance, gpus))))
    yield RunningImage(restart, container_of(name), Image(instance.image))
    # PartOf= restarts the unit with Docker, but nobody waits for it: starting it again does.
    yield ServerHandler(
        waits,
        on=(DOCKER_RESTARTED, DOCKER_MOVED),
        script=f"{words('settle_debt', unit)} && {words('start_unit', unit, str(seconds))}",
        covered_by=(*comes_up, restart.id),
        waits=True,
        unit=unit,
    )
    others = (f"command:{unit}", f"image-of:{unit}", f"handler:{waits}")
    yield ModelRepository(
        unit,
        models_of(name, instance),
        instance,
        gpus_in(instance, gpus),
        starts=(*comes_up, restart.id, *others),
    )


def gpus_in(instance: Instance, gpus: int) -> int:
    """How many GPUs the container of an instance has at most, on a host with ``gpus``."""
    if isinstance(instance.gpus, list):
        return len(instance.gpus)
    return gpus if instance.gpus == "all" else 0


def _unit(name: str, instance: Instance, gpus: int) -> str:
    stop = launch.stop_timeout_of(instance)
    return render(
        "triton/triton@.service.j2",
        name=name,
        label=constant(CONTAINERS, "instance_label"),
        instance=instance,
        steering={key: value for key, value in instance.env.items() if STEERING.fullmatch(key)},
        container=container_of(name),
        environment=environment_file(name),
        models=models_of(name, instance),
        canary=CANARY,
        published=f"[{instance.address}]" if ":" in instance.address else instance.address,
        gate=GATE,
        ready=READY,
        mounts_gate=MOUNTS_GATE,
        paths=[
            models_of(name, instance),
            *(m.partition(":")[0] for m in instance.mounts if re.match("/.*:", m)),
        ],
        gpu_options=launch.gpu_options(instance),
        confinement=launch.confinement(instance),
        server=launch.server(name, instance, gpus),
        selection=selection_of(instance),
        stop_timeout=stop,
        unit_stop_timeout=stop + 15,
        expected=launch.expected_models(instance),
        asks=ASKS,
        canaries=[(canary, _request(instance, canary)) for canary in instance.canaries],
        start_timeout=launch.start_timeout_of(instance),
    )


def _request(instance: Instance, canary: Canary) -> str:
    return http.request(instance.address, instance.http_port, canary.path, canary.body)[2]


EXAMPLE = {
    "instances": {
        "main": {
            "image": "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3",
            "env": {"GREETING": 'hello "world"'},
            "args": ["--log-verbose=1"],
        },
        "second": {
            "image": "nvcr.io/nvidia/tritonserver:24.07-py3",
            "gpus": [0],
            "http_port": 9000,
            "grpc_port": 9001,
            "metrics_port": 9002,
            "canary": False,
        },
    }
}


def removal() -> list[AnyResource]:
    """Every instance whose unit is ours, also of versions that kept no record."""
    return [NoOtherUnits("triton", (), beside=BESIDE, why="the role is removed")]


ROLE = Role(
    "triton",
    TritonSettings,
    resources,
    order=40,
    needs=("driver", "toolkit", "docker"),
    removal=removal,
    example=EXAMPLE,
)
