"""Triton Inference Server: one systemd unit an instance, with its GPUs, ports and gates."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from provision.errors import Refusal
from provision.facts import Facts
from provision.probe import words
from provision.render import render
from provision.resource import AnyResource, Handler
from provision.resources.file import Directory, File
from provision.resources.gpus_in_containers import CONTAINERS, GpusInContainers
from provision.resources.image import Image, RegistryLogin, registry_of
from provision.resources.other_units import UNITS, NoOtherUnits
from provision.resources.signals import DOCKER_MOVED, DOCKER_RESTARTED
from provision.role import ImpossibleError, Role, Settings
from provision.roles.triton.arguments import options, unit_sets
from provision.roles.triton.fits_driver import FitsDriver, Serving, refuse_unfit
from provision.roles.triton.running import RunningCommand, RunningImage
from provision.roles.triton.server import INSTANCES, Server, ServerRestart, UnitFile, command_signal
from provision.roles.triton.unit import command_of
from provision.shell import constant

GATE = constant(INSTANCES, "gpu_gate")
MOUNTS_GATE = "/usr/local/lib/provision/triton-mounts"
READY = "/usr/local/lib/provision/triton-wait-ready"
CANARY = "/usr/local/share/provision/triton"
ENVIRONMENT = "/etc/triton/{}.env"
"""Where the environment of an instance lies; ``{}`` stands for its name."""
CANARY_MODEL = "provision_canary"
"""The model that answers which GPUs its process sees; verification asks it."""

RELEASE_HINT = "name a release: …/tritonserver:24.07-trtllm-python-py3"

STEERING = re.compile(r"PATH|HOME|IFS|ENV|MAINPID|LANG|TMPDIR|(LD|BASH|DOCKER|LC|XDG)_\w+")
"""Variables that would also steer the docker client and the gates if the unit had them. They go to the
container on its command line, which everybody on the host can read: none of them is a secret."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
Registry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Path = Annotated[str, StringConstraints(pattern=r"^/[^\x00:]*$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Index = Annotated[int, Field(ge=0)]
Uuid = Annotated[str, StringConstraints(pattern=r"^(GPU|MIG)-[A-Za-z0-9/-]+$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00\r]*$", max_length=100_000)]
"""What one argument of a program can hold: Linux takes up to 128 KiB (execve(2))."""


IMAGE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*(:\d+(?=/))?(/[a-z0-9][a-z0-9._-]*)*)"
    r"(:(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
"""A reference to an image, as Docker reads it (distribution, reference/regexp.go)."""


class Instance(Settings):
    """One Triton server. Its name is its key under ``instances:``, its unit ``triton@NAME.service``."""

    image: str
    """Image with its tag, and a digest if you pin it: ``…/tritonserver:24.07-trtllm-python-py3``."""
    gpus: Literal["all", "none"] | Annotated[list[Index | Uuid], Field(min_length=1)] = "all"
    """``all``, ``none``, or a list of GPU UUIDs (better) or indexes, which may move when a GPU fails."""
    models: Path | None = Field(default=None, examples=["/srv/models"])
    """Model repository on the host, mounted read-only. Null: ``/srv/triton/NAME/models``."""
    expect: list[Text] = []
    """Models that must be READY; verification looks for them."""
    address: str = "127.0.0.1"
    """Address of the host for the ports. Triton has no authentication: mind who reaches it."""
    http_port: Port = 8000
    """Port of the host for HTTP; every instance of a host needs three of its own."""
    grpc_port: Port = 8001
    """Port of the host for gRPC."""
    metrics_port: Port = 8002
    """Port of the host for metrics (Prometheus)."""
    args: list[Text] = []
    """Further arguments for tritonserver."""
    env: dict[Variable, Text] = {}
    """Environment of the container, in a file for root alone; PATH, LD_… and the like stand in the unit."""
    mounts: list[Text] = []
    """Further mounts, as ``docker run --volume`` takes them."""
    shm_size: str = Field(default="1g", pattern=r"^[0-9]+[bkmg]?$")
    """Shared memory; the python backend and NCCL need more than Docker's 64 MB."""
    ulimits: dict[Variable, int] = {"memlock": -1, "stack": 67108864}
    """Limits of the container; empty: Docker's own."""
    user: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+)?$", examples=["triton-server"]
    )
    """User in the container; null: the image's."""
    ready_timeout: int = Field(default=300, ge=10)
    """Seconds that loading may take; give large language models 900 and more."""
    exit_timeout: int = Field(default=30, ge=1)
    """Seconds for requests in flight when it stops."""
    canary: bool = True
    """Serve a small model that proves the path from HTTP to the GPUs; it needs the python backend."""

    @field_validator("image")
    @classmethod
    def _names_a_version(cls, image: str) -> str:
        parts = IMAGE.fullmatch(image)
        if parts is None:
            raise ValueError(f"{image!r} is not an image reference")
        if not parts["tag"] and not parts["digest"]:
            raise ImpossibleError(f"{image!r} has no tag", hint=RELEASE_HINT)
        if parts["tag"] == "latest" and not parts["digest"]:
            raise ImpossibleError(f"{image!r}: tag latest changes its content", hint=RELEASE_HINT)
        return image

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ImpossibleError(
                f"{address!r} is not an IP address",
                hint="as 127.0.0.1, 0.0.0.0, ::1, or an address of the host",
            ) from None
        if "%" in address:
            raise ImpossibleError(f"{address!r} names an interface", hint="give the address without %…")
        return address

    @model_validator(mode="after")
    def _args_leave_the_unit_its_own(self) -> Instance:
        for option, value in options(self.args):
            if says := unit_sets(option, value):
                raise ImpossibleError(f"args: {option}: {says[0]}", hint=says[1])
        missing = [model for model in self.expect if self.explicit and not self._loads(model)]
        if missing:
            raise ImpossibleError(
                f"expect: {missing[0]}: with --model-control-mode=explicit Triton loads no model by itself",
                hint=f"args: --load-model={missing[0]}",
            )
        return self

    @property
    def explicit(self) -> bool:
        """Whether Triton loads only the models that its command names."""
        return ("--model-control-mode", "explicit") in options(self.args)

    def _loads(self, model: str) -> bool:
        return any(o == "--load-model" and value in (model, "*") for o, value in options(self.args))

    @property
    def ports(self) -> dict[str, int]:
        """Published ports by the name of their setting."""
        return {"http_port": self.http_port, "grpc_port": self.grpc_port, "metrics_port": self.metrics_port}


class TritonSettings(Settings):
    """Settings under ``triton:``."""

    instances: dict[Name, Instance | None] = Field(default={})
    """The servers of the host by name. Null: not on this host, whatever its groups say."""

    registry_logins: dict[Registry, RegistryLogin] = Field(default={})
    """Who pulls from a registry, by its name as it stands in ``image:``; ``docker.io`` where none does. A
    registry that is not named here is asked as root's own Docker client on the host asks it."""

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
    others = NoOtherUnits("triton", tuple(map(unit_of, settings.servers)), beside=(ENVIRONMENT,))
    if not settings.servers:
        return [others, GpusInContainers("triton")]
    found: list[AnyResource] = [
        Image(image, settings.registry_logins.get(registry_of(image)))
        for image in dict.fromkeys(server.image for server in settings.servers.values())
    ]
    found += _shared(any(instance.canary for instance in settings.servers.values()))
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
        found += _server(name, instance)
    return [*found, others, GpusInContainers("triton"), FitsDriver(serving, facts.declared_driver)]


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
def _shared(canary: bool) -> tuple[AnyResource, ...]:
    gates = (
        File(GATE, render("triton/gpu-gate.j2").encode(), mode="0755"),
        File(MOUNTS_GATE, render("triton/mounts-gate.j2").encode(), mode="0755"),
        File(READY, render("triton/wait-ready.j2").encode(), mode="0755"),
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
    yield File(environment_file(name), environment, mode="0600", sensitive=True)
    yield UnitFile(
        unit_file(name),
        _unit(name, instance).encode(),
        unit=unit_of(name),
        address=instance.address,
        ports=tuple(instance.ports.items()),
        selection=selection_of(instance),
        gpus=gpus,
        beside=f"file:{environment_file(name)}",
    )


def _server(name: str, instance: Instance) -> Iterator[AnyResource]:
    unit, seconds, ports = unit_of(name), instance.ready_timeout + 60, tuple(instance.ports.values())
    read = [environment_file(name)]
    if instance.canary:
        read += [f"{CANARY}/{CANARY_MODEL}/{part}" for part in ("config.pbtxt", "1/model.py")]
    files = tuple(f"file:{path}" for path in read)
    yield Server(
        unit,
        timeout=seconds,
        reads=(*files, f"file:{unit_file(name)}"),
        file=unit_file(name),
        ports=ports,
    )
    # Both restart it if that is owed.
    comes_up = (f"service:{unit}:start", f"service:{unit}:await")
    restart = ServerRestart(
        f"restart {unit}",
        # The container keeps the folder that it was started with, though it is there no more.
        on=(*files, f"{Directory(models_of(name, instance)).id}:create", command_signal(unit)),
        script=words("serve", "restart_unit", unit, str(seconds), *map(str, ports)),
        covered_by=comes_up,
        unit=unit,
        seconds=seconds,
        ports=ports,
    )
    yield restart
    yield RunningCommand(restart, tuple(command_of(_unit(name, instance))))
    yield RunningImage(restart, container_of(name), Image(instance.image))
    # PartOf= restarts the unit with Docker, but nobody waits for it: starting it again does.
    yield Handler(
        f"wait for {unit}",
        on=(DOCKER_RESTARTED, DOCKER_MOVED),
        script=words("start_unit", unit, str(seconds)),
        covered_by=(*comes_up, f"handler:restart {unit}"),
    )


def selection_of(instance: Instance) -> str:
    """The GPUs of an instance, as the NVIDIA runtime and the gate take them."""
    return instance.gpus if isinstance(instance.gpus, str) else ",".join(map(str, instance.gpus))


def _unit(name: str, instance: Instance) -> str:
    stop, label = instance.exit_timeout + 15, constant(CONTAINERS, "instance_label")
    return render(
        "triton/triton@.service.j2",
        name=name,
        label=label,
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
        loads=[CANARY_MODEL] if instance.canary and instance.explicit else [],
        selection=selection_of(instance),
        stop_timeout=stop,
        unit_stop_timeout=stop + 15,
        start_timeout=instance.ready_timeout + 30,
    )


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
    return [NoOtherUnits("triton", (), beside=(ENVIRONMENT,), why="the role is removed")]


ROLE = Role(
    "triton",
    TritonSettings,
    resources,
    order=40,
    needs=("driver", "toolkit", "docker"),
    removal=removal,
    example=EXAMPLE,
)
