"""Settings of one Triton server."""

from __future__ import annotations

import difflib
import ipaddress
import posixpath
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from provision.gpu.triton_releases import release_of
from provision.role import ImpossibleError, Settings
from provision.roles.triton.arguments import (
    LOAD,
    METRICS,
    MODEL_CONTROL,
    TRUE,
    Option,
    contradictions,
    last,
    options,
    restricts,
)
from provision.roles.triton.canaries import INPUT, Canary
from provision.secrecy import without_secrets

SHM_HINT = "as 1g, or 16g; the memory is taken as it is used, and a host has to have it"
RELEASE_HINT = "name a release: …/tritonserver:24.07-trtllm-python-py3"

STEERING = re.compile(r"PATH|HOME|IFS|ENV|MAINPID|LANG|TMPDIR|(LD|BASH|DOCKER|LC|XDG)_\w+")
"""Variables that would also steer the docker client and the gates if the unit had them. They go to the
container on its command line, which everybody on the host can read: none of them may be a secret."""

LARGEST_PORT = 65535
LARGEST_INTEGER = 2**63 - 1
"""Docker's numbers are Go's int64."""

MOST_OPEN_FILES = 2147483584
"""What Linux takes as nofile: fs.nr_open can be no more (kernel, fs/file.c), and no limit is more still."""

MOST_MEMORY = 64 * 2**40
"""Bytes of memory that no host has; a typo, then."""

Port = Annotated[int, Field(ge=1, le=LARGEST_PORT)]
Path = Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f:]*$")]
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


CANARY = {
    "model": "resnet",
    "inputs": [INPUT],
    "outputs": [{"name": "OUT", "data": [3.0]}],
}
"""An example of a canary."""


class Instance(Settings):
    """One Triton server. Its name is its key under ``instances:``, its unit ``triton@NAME.service``."""

    image: str
    """Image with its tag, and a digest if you pin it: ``…/tritonserver:24.07-trtllm-python-py3``."""
    gpus: Literal["all", "none"] | Annotated[list[Index | Uuid], Field(min_length=1)] = "all"
    """``all``, ``none``, or a list of UUIDs of GPUs or MIG devices, or of indexes, which may move when a GPU
    fails."""
    injection: Literal["runtime", "gpus", "cdi"] = "runtime"
    """How Docker gives the GPUs: the nvidia runtime, ``--gpus``, or CDI devices."""
    models: Path | None = Field(default=None, examples=["/srv/models"])
    """Model repository on the host, mounted read-only. Null: ``/srv/triton/NAME/models``."""
    model_control: Literal["none", "explicit", "poll"] = "none"
    """Which models are loaded: all at the start, those of ``load`` and the canary, or what is found again and
    again."""
    load: list[Annotated[Text, Field(min_length=1)]] = []
    """Models that are loaded at the start with ``model_control: explicit``; ``*`` alone: all."""
    expect: list[Annotated[Text, Field(min_length=1)]] | None = Field(default=None, examples=[["resnet"]])
    """Models that must be READY, as ``resnet``, or ``resnet/2`` for a version. Null: all of the
    repository; with ``explicit`` those that are loaded. Empty: none but the canary."""
    canaries: list[Canary] = Field(default=[], examples=[[CANARY]])
    """Requests that models must answer before the server counts as ready; verification sends them, too."""
    address: str = "127.0.0.1"
    """Address of the host for the ports. Triton has no authentication: mind who reaches it."""
    http_port: Port = 8000
    """Port of the host for HTTP; every instance of a host needs three of its own."""
    grpc_port: Port = 8001
    """Port of the host for gRPC."""
    metrics_port: Port = 8002
    """Port of the host for metrics (Prometheus)."""
    world_size: int = Field(default=1, ge=1, le=64)
    """Ranks of a TensorRT-LLM engine, a tritonserver under mpirun each; every rank needs a GPU."""
    mpi: Literal["leader", "orchestrator"] = "leader"
    """Who starts the ranks of TensorRT-LLM engines: mpirun, or one server for all of its models."""
    args: list[Text] = []
    """Further arguments for tritonserver."""
    env: dict[Variable, Text] = {}
    """Environment of the container, in a file for root alone; PATH, LD_… and the like stand in the unit."""
    mounts: list[Text] = []
    """Further mounts, as ``docker run --volume`` takes them."""
    shm_size: str = Field(default="1g", pattern=r"^[0-9]+[bkmg]?$")
    """Shared memory; the python backend and NCCL need more than Docker's 64 MB. NVIDIA gives TensorRT-LLM
    ``2g``."""
    ulimits: dict[Variable, int] = {"memlock": -1, "stack": 67108864}
    """Limits of the container; empty: Docker's own. Docker 29 has only 1024 open files (containerd 2.1.5; not
    tried here): give ``nofile: 1048576`` there."""
    user: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+)?$", examples=["triton-server"]
    )
    """User in the container; null: the image's."""
    no_new_privileges: bool = True
    """No program in the container gets more rights than it was started with, as setuid gives. A server that
    runs without it is not restarted for it, and takes it at its next start."""
    capabilities: list[str] | None = Field(default=None, examples=[["DAC_OVERRIDE"]])
    """The only capabilities of the container; null: Docker's own. Not tried with NVIDIA's images."""
    read_only: bool = False
    """Read-only image with a writable /tmp in memory. Not tried with NVIDIA's images."""
    restart: Literal["always", "on-failure", "no"] = "always"
    """When systemd starts a server again that ended by itself; quote ``"no"``."""
    ready_timeout: int = Field(default=300, ge=10, le=86400)
    """Seconds that loading may take; give large language models 900 and more."""
    rollback: bool = False
    """Serve with the previous version again where a changed unit, image or environment does not get ready."""
    exit_timeout: int = Field(default=30, ge=1, le=86400)
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
        if (port := re.search(r":(\d+)/", image)) and int(port[1]) > LARGEST_PORT:
            raise ImpossibleError(f"{image!r}: no registry has port {port[1]}", hint=RELEASE_HINT)
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

    @field_validator("capabilities")
    @classmethod
    def _are_capabilities(cls, names: list[str] | None) -> list[str] | None:
        for number, name in enumerate(names or ()):
            if name not in CAPABILITIES:
                plain = name.upper().removeprefix("CAP_")
                close = difflib.get_close_matches(plain, CAPABILITIES, n=1)
                hint = f"did you mean {close[0]}?" if close else "see capabilities(7), without CAP_"
                raise ImpossibleError(f"Linux has no capability {name!r}", hint, at=(number,))
        return names

    @field_validator("shm_size")
    @classmethod
    def _fits_into_memory(cls, size: str) -> str:
        number, unit = int(size.rstrip("bkmg")[:30]), size.lstrip("0123456789")
        if number * 1024 ** "bkmg".index(unit or "b") > MOST_MEMORY:
            raise ImpossibleError(f"{size[:30]} is more memory than any host has", hint=SHM_HINT)
        return size

    @field_validator("ulimits")
    @classmethod
    def _are_limits(cls, ulimits: dict[str, int]) -> dict[str, int]:
        for name, value in ulimits.items():
            if name not in LIMITS:
                raise ImpossibleError(
                    f"Docker knows no limit {name}", hint=f"known: {', '.join(LIMITS)}", at=(name,)
                )
            if name == "nofile" and not 0 <= value <= MOST_OPEN_FILES:
                why = "Linux starts no container whose limit of open files is above fs.nr_open, as -1 is"
                why = why if value >= -1 else f"{value} is no limit"
                raise ImpossibleError(why, hint="nofile: 1048576", at=(name,))
            if value < -1:
                raise ImpossibleError(f"{value} is no limit", hint="-1 is without a limit", at=(name,))
            if value > LARGEST_INTEGER:
                why = f"Docker takes no limit above {LARGEST_INTEGER}"
                raise ImpossibleError(why, hint="-1 is without a limit", at=(name,))
        return ulimits

    @model_validator(mode="after")
    def _fits_together(self) -> Instance:
        given = options(self.args)
        for problem in (
            *(
                ImpossibleError(f"{found.option.written}: {found.why}", found.hint, at=_arg(found.option))
                for found in contradictions(given, release_of(self.image))
            ),
            *self._impossible_models(given),
            *self._impossible_ranks(given),
            *self._impossible_environment(),
            *self._impossible_mounts(),
        ):
            raise problem
        return self

    def _impossible_models(self, given: list[Option]) -> Iterator[ImpossibleError]:
        mine = [option for option in given if option.name in (MODEL_CONTROL, LOAD)]
        if mine and (self.model_control != "none" or self.load or self.under_mpi):
            why = f"{mine[0].written}: the unit gives it to its servers"
            yield ImpossibleError(why, "use model_control and load", at=_arg(mine[0]))
        if self.load and self.model_control != "explicit":
            why = f"with model_control {self.model_control} Triton loads all models"
            yield ImpossibleError(why, "model_control: explicit", at=("load",))
        if "*" in self.load and len(self.load) > 1:
            yield ImpossibleError("* is all models, and stands alone", "load: ['*']", at=("load",))
        expected = [(("expect", at), name.partition("/")[0]) for at, name in enumerate(self.expect or ())]
        asked = [(("canaries", at, "model"), canary.model) for at, canary in enumerate(self.canaries)]
        for at, model in (*expected, *asked):
            if self.loads is not None and not {model, "*"} & set(self.loads):
                hint = (
                    f"load: [{model}]" if self.model_control == "explicit" else f"args: --load-model={model}"
                )
                why = f"{model}: with model control explicit Triton loads no model by itself"
                yield ImpossibleError(why, hint, at=at)
        for number, name in enumerate(self.expect or ()):
            if not re.fullmatch(r"[^/\x00-\x1f]+(/[1-9][0-9]*)?", name):
                why = f"{name!r} is neither a model nor a version of one"
                yield ImpossibleError(why, "as resnet, or resnet/2", at=("expect", number))
        if self.canaries and restricts(given, "inference"):
            why = "--http-restricted-api: inference is behind a header that the unit does not have"
            yield ImpossibleError(why, "take inference out of it, or the canaries", at=("canaries",))

    def _impossible_ranks(self, given: list[Option]) -> Iterator[ImpossibleError]:
        if self.gpus == "none" and "trtllm" in self.image:
            why = f"{self.image} needs GPUs: import tensorrt_llm ends without the driver's libraries"
            hint = "gpus: all; or an image without trtllm, which serves on the CPU"
            yield ImpossibleError(why, hint, at=("gpus",))
        if not self.under_mpi:
            return
        setting = "world_size" if self.world_size > 1 else "mpi"
        if "trtllm" not in self.image:
            hint = "take …/tritonserver:24.07-trtllm-python-py3, or name your own image with trtllm in it"
            yield ImpossibleError(f"{self.image} is no image of TensorRT-LLM", hint, at=(setting,))
        if self.mpi == "orchestrator" and self.world_size > 1:
            why = "in orchestrator mode one server starts the ranks of all models itself"
            yield ImpossibleError(
                why, "world_size: 1, and gpu_device_ids in each config.pbtxt", at=("world_size",)
            )
        if isinstance(self.gpus, list) and len(self.gpus) < self.world_size:
            why = f"{self.world_size} ranks need a GPU each, and gpus has {len(self.gpus)}"
            yield ImpossibleError(why, "add GPUs, or build the engine for fewer", at=("world_size",))
        for option in given:
            if option.name == "backend-config" and "shm-region-prefix-name" in option.value:
                why = f"{option.written}: each rank has its own shm-region-prefix-name"
                yield ImpossibleError(why, "take it out", at=_arg(option))

    def _impossible_environment(self) -> Iterator[ImpossibleError]:
        if isinstance(self.gpus, list) and len(set(self.gpus)) < len(self.gpus):
            yield ImpossibleError("a GPU stands there twice", "name each once", at=("gpus",))
        for key in self.env:
            if key == "NVIDIA_VISIBLE_DEVICES":
                yield ImpossibleError("the unit gives the container its GPUs", "use gpus", at=("env", key))
            if STEERING.fullmatch(key) and without_secrets(pair := f"{key}=x") != pair:
                why = "the value would stand in the unit, which everybody on the host can read"
                yield ImpossibleError(why, "give the variable another name", at=("env", key))

    def _impossible_mounts(self) -> Iterator[ImpossibleError]:
        taken = {"/models": "the model repository"}
        taken |= {"/opt/provision/models": "the canary"} if self.canary else {}
        taken |= {"/tmp": "what read_only leaves writable"} if self.read_only else {}  # noqa: S108
        if self.models and posixpath.normpath(self.models).strip("/") == "":
            why = "/ is the whole host, and no model repository"
            yield ImpossibleError(why, "name the folder with the models: /srv/models", at=("models",))
        for number, mount in enumerate(self.mounts):
            source, _, rest = mount.partition(":")
            target, _, mode = rest.partition(":") if rest else (source, "", "")
            at = ("mounts", number)
            if CONTROL.search(mount):
                why = "a mount is one line, without tabs and other control characters"
                yield ImpossibleError(why, "as /srv/data:/data:ro", at=at)
            elif wrong_source := self._wrong_source(source, alone=not rest):
                yield ImpossibleError(*wrong_source, at=at)
            elif not target.startswith("/"):
                yield ImpossibleError(f"{target!r} is no absolute path", "as /srv/data:/data:ro", at=at)
            elif (place := posixpath.normpath(target)) in taken:
                yield ImpossibleError(f"{taken[place]} is mounted at {place}", "take another path", at=at)
            elif place == "/":
                yield ImpossibleError("/ of the container is its image", "as /srv/data:/data:ro", at=at)
            elif wrong := [word for word in mode.split(",") if mode and word not in MOUNT_MODES]:
                yield ImpossibleError(f"Docker knows no mode {wrong[0]!r}", "ro, or rw", at=at)
            taken[posixpath.normpath(target)] = "another folder"

    @staticmethod
    def _wrong_source(source: str, *, alone: bool) -> tuple[str, str] | None:
        """Why nothing can be mounted from there, and what to do; ``alone`` where no target follows."""
        if source.startswith("-"):
            option = source.partition("=")[0]
            return f"{option} is an option of docker run, and no mount", "take it out"
        if source.startswith("/"):
            return None
        if alone or not VOLUME.fullmatch(source):
            return f"{source!r} is neither an absolute path nor the name of a volume", "as /srv/data:/data:ro"
        return None

    @property
    def loads(self) -> list[str] | None:
        """The models that Triton is told to load; None where it loads all."""
        given = options(self.args)
        if "explicit" not in (self.model_control, last(given, MODEL_CONTROL, "none")):
            return None
        return [*self.load, *(option.value for option in given if option.name == LOAD)]

    @property
    def under_mpi(self) -> bool:
        """Whether mpirun starts the server."""
        return self.world_size > 1 or self.mpi == "orchestrator"

    @property
    def shows_metrics(self) -> bool:
        """Whether the server answers on its port for metrics."""
        return last(options(self.args), METRICS, "true") in TRUE

    @property
    def ports(self) -> dict[str, int]:
        """Published ports by the name of their setting."""
        return {"http_port": self.http_port, "grpc_port": self.grpc_port, "metrics_port": self.metrics_port}


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+", re.ASCII)
"""Names of Docker's volumes (moby, volume/validate)."""

CAPABILITIES = (
    *("AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN"),
    *("DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE"),
    *("LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE"),
    *("NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN"),
    *("SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"),
)
"""capabilities(7), without ``CAP_``."""

MOUNT_MODES = (
    *("ro", "rw", "z", "Z", "nocopy", "shared", "rshared", "slave", "rslave", "private", "rprivate"),
    *("consistent", "cached", "delegated"),
)
"""What may stand behind a mount (docker container run, ``--volume``)."""

LIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)
"""Limits that Docker knows (docker/go-units, ulimit.go)."""


def _arg(option: Option) -> tuple[str | int, ...]:
    return "args", option.at
