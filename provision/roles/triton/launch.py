"""What an instance runs: how its container gets GPUs and is confined, and its servers. Pure."""

from __future__ import annotations

from provision.gpu.triton_releases import release_of
from provision.roles.triton.arguments import options, restricts
from provision.roles.triton.instance import Instance
from provision.roles.triton.unit import NO_NEW_PRIVILEGES

CANARY_MODEL = "provision_canary"
"""The model that answers which GPUs its process sees; verification asks it."""

RANK_MODEL = "tensorrt_llm"
"""The model that all ranks of an engine load (launch_triton_server.py of tensorrtllm_backend)."""

LAST_WITH_POOLS = "24.06"
"""Until this release an orchestrator's server keeps its memory pools (launch_triton_server.py)."""


def selection_of(instance: Instance) -> str:
    """The GPUs of an instance, as the NVIDIA runtime and the gate take them."""
    return instance.gpus if isinstance(instance.gpus, str) else ",".join(map(str, instance.gpus))


def stop_timeout_of(instance: Instance) -> int:
    """Seconds after which Docker kills the container: longer than its server takes to end.

    mpirun lets the time of :func:`_server` pass twice: before SIGTERM, and before SIGKILL
    (open-mpi/ompi#7033).
    """
    return 2 * instance.exit_timeout + 15 if instance.under_mpi else instance.exit_timeout + 15


def start_timeout_of(instance: Instance) -> int:
    """Seconds that a start may take: loading, and the answers of the canaries."""
    return instance.ready_timeout + 30 + sum(canary.timeout for canary in instance.canaries)


def gpu_options(instance: Instance) -> list[str]:
    """Options of ``docker run`` that give the container its GPUs, and no other way to them.

    With ``--gpus`` a list stands in quotes of its own: Docker reads the value as CSV.
    """
    selection = selection_of(instance)
    if selection == "none":
        return ["--runtime=runc"]
    if instance.injection == "runtime":
        return ["--runtime=nvidia", f"--env=NVIDIA_VISIBLE_DEVICES={selection}"]
    if instance.injection == "gpus":
        return ["--runtime=runc", "--gpus=all" if selection == "all" else f'--gpus="device={selection}"']
    return ["--runtime=runc", *(f"--device=nvidia.com/gpu={gpu}" for gpu in selection.split(","))]


def confinement(instance: Instance) -> list[str]:
    """Options of ``docker run`` that take rights away.

    The writable /tmp may hold programs: the python backend unpacks environments of models there.
    """
    found = [NO_NEW_PRIVILEGES] if instance.no_new_privileges else []
    if instance.capabilities is not None:
        found += ["--cap-drop=ALL", *(f"--cap-add={name}" for name in instance.capabilities)]
    return found + (["--read-only", "--tmpfs=/tmp:exec"] if instance.read_only else [])


def server(name: str, instance: Instance, gpus: int) -> list[str]:
    """The command in the container: tritonserver, or mpirun in the foreground with one for each rank.

    Not launch_triton_server.py: it starts mpirun, and ends, and the container with it. By itself mpirun would
    bind each of two ranks to one core (4.1.4, tried).

    :param gpus: how many GPUs the host has.
    """
    if not instance.under_mpi:
        return _server(name, instance)
    patience = str(instance.exit_timeout + 5)
    command = ["mpirun", "--allow-run-as-root", "--bind-to", "none"]
    command += ["--mca", "odls_base_sigkill_timeout", patience]
    for rank in range(instance.world_size):
        command += [*([":"] if rank else []), "-n", "1", *_rank(name, instance, rank, gpus)]
    return command


def _server(name: str, instance: Instance, *, canary: bool = True) -> list[str]:
    """tritonserver with what all of its kinds have, and the arguments of the settings last."""
    serves = instance.canary and canary
    command = ["tritonserver", "--model-repository=/models"]
    command += ["--model-repository=/opt/provision/models"] if serves else []
    command += [f"--exit-timeout-secs={instance.exit_timeout}", "--log-format=ISO8601", f"--id={name}"]
    command += _models(instance) if canary else []
    return command + instance.args


def _models(instance: Instance) -> list[str]:
    """Which models are loaded. ``*`` is all of them, and tritonserver refuses any other beside it."""
    mode = [f"--model-control-mode={instance.model_control}"] if instance.model_control != "none" else []
    alone = instance.canary and instance.loads is not None and "*" not in instance.loads
    models = [*([CANARY_MODEL] if alone else []), *instance.load]
    return mode + [f"--load-model={model}" for model in models]


def expected_models(instance: Instance) -> list[str]:
    """What must be READY: ``MODEL`` or ``MODEL/VERSION``; ``*`` alone: all models that Triton lists.

    Nothing where Triton tells its models only to those who have a header.
    """
    if restricts(options(instance.args), "model-repository"):
        return []
    named = instance.expect
    if named is None:
        named = ["*"] if instance.loads is None else instance.loads
    return ["*"] if "*" in named else [*named, *([CANARY_MODEL] if instance.canary else [])]


def _rank(name: str, instance: Instance, rank: int, gpus: int) -> list[str]:
    """The server of one rank, as launch_triton_server.py starts it; only that of rank 0 has ports."""
    command = _server(name, instance, canary=not rank)
    if rank:
        command += [f"--allow-{way}=false" for way in ("http", "grpc", "metrics")]
        command += ["--model-control-mode=explicit", f"--load-model={RANK_MODEL}"]
    if instance.mpi == "orchestrator" and (release_of(instance.image) or "99") > LAST_WITH_POOLS:
        count = gpus if isinstance(instance.gpus, str) else len(instance.gpus)
        command += ["--pinned-memory-pool-byte-size=0", "--enable-peer-access=false"]
        command += [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(count)]
    return [
        *command,
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name=prefix{rank}_",
    ]
