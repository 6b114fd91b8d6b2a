"""A host that serves on its H100, played from recorded answers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from provision.probe import Output
from provision.role import Role, Settings
from provision.roles import all_roles, choose
from provision.roles.docker.role import DockerSettings
from provision.roles.triton.instance import Instance
from provision.roles.triton.launch import CANARY_MODEL
from provision.roles.triton.role import TritonSettings, unit_file
from provision.roles.triton.unit import command_of
from tests.unit.verify.healthy_driver import FACTS, HEALTHY, UUID, capture, files_of
from tests.unit.verify.played_host import Played, There, Unit, said

IMAGE = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"
ID = "sha256:aaaa"
JSON = "/etc/docker/daemon.json"
UNIT = unit_file("llm")
MODELS_FOLDER = "/srv/triton/llm/models"
DOCUMENT = {
    "default-runtime": "nvidia",
    "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},
}

# The last line of a question, as a regular expression.
ENGINE, FLAGS, FORCE = r"\ndocker_here$", r"\ndocker_unit_files$", r"\ndockerd_in_force$"
INFO, IMAGE_ID = r" docker info --format '{{json \.}}'$", r"^timeout -k 5 30 docker image inspect "
CONFIG = r"\|\| cat /etc/nvidia-container-runtime/config\.toml$"
PACKAGES, DAMAGED = r"\ninstalled_packages docker[^\n]*$", r"\ndamaged_files [^\n]*$"
INSPECT = r"^timeout -k 5 30 docker inspect triton-llm$"
SIGHT, INSIDE, OTHERS = (
    r"\ngpus_of_containers$",
    r"docker exec triton-llm nvidia-smi -L",
    r"\nown_units triton$",
)
PLAIN, NONE = (
    r"docker run --rm --init --pull=never [a-z]",
    r"docker run .* --env=NVIDIA_VISIBLE_DEVICES=none ",
)
SHOW, COMMAND, SOCKETS = (
    r"systemctl show --property=",
    r"^cat /proc/\d+/cmdline$",
    r"ss --numeric --listening",
)
OWED_TO_SERVERS = r"\nowed_to_servers [^\n]*$"
MOUNTED = r"^stat -L -c %d:%i /srv/triton/llm/models /proc/\d+/root/models$"
TOP = r"docker top triton-llm -eo pid,args$"
SERVER, READY, INDEX = r"GET /v2 HTTP", r"GET /v2/health/ready HTTP", r"POST /v2/repository/index HTTP"
REPOSITORY, ASKED = r"\nmodel_repositories [^\n]*$", r"POST /v2/models/gpu_probe/infer HTTP"
INFERENCE, METRICS = rf"POST /v2/models/{CANARY_MODEL}/infer HTTP", r"GET /metrics HTTP"


ASKS = {
    "model": "gpu_probe",
    "inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [1]}],
    "outputs": [{"name": "OUT", "data": [2]}],
}


def http(body: str, status: str = "200 OK") -> Output:
    """An answer of a server."""
    length = len(body.encode())
    return said(
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )


def step(name: str, text: str = "", code: int = 0) -> str:
    """How a step inside a container ended."""
    return f"== {name}\n{text}\n== exit {code}\n"


def plain(nvml: str = "", smi: str = "", llm: str = "") -> Output:
    """A plain container's steps; a text instead of "" is the error of that step."""
    smi_step = step("gpus", smi, 127) if smi else step("gpus", capture("nvidia-smi/smi_L.txt"))
    steps = step("nvml", nvml, int(bool(nvml))) + smi_step + step("tensorrt_llm", llm, int(bool(llm)))
    return said("\n== NVIDIA Triton Inference Server ==\n\n" + steps)


def repository(config: str | None = None, model: str = "gpu_probe") -> Output:
    """The repository on the host, with one model."""
    words = [f"r {MODELS_FOLDER}", f"m {model}", "v 1", *(["c"] if config is not None else [])]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:") as files:
        member = tarfile.TarInfo(f"{MODELS_FOLDER}/{model}/config.pbtxt")
        member.size = len(config or "")
        if config is not None:
            files.addfile(member, io.BytesIO(config.encode()))
    return Output(0, "".join(f"{word}\0" for word in [*words, ""]).encode() + archive.getvalue())


def inference(*uuids: str) -> Output:
    """The canary's answer from a process that sees these GPUs."""
    outputs = [
        {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["is anybody there?"]},
        {"name": "GPUS", "datatype": "BYTES", "shape": [len(uuids)], "data": list(uuids)},
    ]
    return http(json.dumps({"model_name": CANARY_MODEL, "model_version": "1", "outputs": outputs}))


def index(*models: tuple[str, str]) -> Output:
    """The repository: the captured model, the canary, and models that are not ready, with the reason."""
    ours = [{"name": CANARY_MODEL, "version": "1", "state": "READY"}]
    more = [{"name": name, "version": "1", "state": "UNAVAILABLE", "reason": why} for name, why in models]
    return http(json.dumps(json.loads(capture("triton/triton_host_index.json")) + ours + more))


def unit(**changed: str) -> Output:
    """What systemd says of the instance's unit."""
    properties = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "Result": "success",
        "UnitFileState": "enabled",
        "NeedDaemonReload": "no",
        "FragmentPath": UNIT,
        "ExecStartPre": "{ path=/usr/local/lib/provision/triton-gpu-gate ; argv[]=triton-gpu-gate all }",
        "ExecStart": f"{{ argv[]=/usr/bin/docker run {IMAGE} tritonserver --model-repository=/models }}",
        "MainPID": "77",
        "NRestarts": "0",
        "ExecMainStartTimestampMonotonic": "58657547",
    }
    return said("".join(f"{key}={value}\n" for key, value in (properties | changed).items()))


def container(
    image: str = ID,
    env: tuple[str, ...] = (),
    address: str = "127.0.0.1",
    more: Mapping[str, Any] = {},
) -> Output:
    """What Docker says of the container; its ports are published on ``address``."""
    found: dict[str, Any] = json.loads(capture("docker/G6_inspect.json"))[0]
    ports = {f"{port}/tcp": [{"HostIp": address, "HostPort": str(port)}] for port in (8000, 8001, 8002)}
    changed = {"Image": image, "Config": {"Env": list(env)}, "NetworkSettings": {"Ports": {**ports, **more}}}
    return said(json.dumps([found | changed]))


def docker_info(**changed: Any) -> Output:
    """What dockerd says of itself."""
    recorded = json.loads(capture("docker/I1_docker_info.txt").splitlines()[0])
    return said(json.dumps(recorded | {"DefaultRuntime": "nvidia"} | changed))


def docker_packages(version: str = "20.10.24", state: str = "installed", want: str = "install") -> Output:
    """What the package manager says of Docker's packages."""
    return said(f"{state} docker.io {version} {want}\ninstalled tini 0.19.0-1 install\n")


def document(**changed: Any) -> There:
    """daemon.json with some keys changed; None takes one away."""
    keys = {key.replace("_", "-"): value for key, value in changed.items()}
    return There(json.dumps({key: value for key, value in (DOCUMENT | keys).items() if value is not None}))


def settings(docker: Mapping[str, Any] = {}, **instance: Any) -> dict[Role, Settings]:
    """Docker and one instance, with some of their settings changed."""
    of_instance = Instance(**{"image": IMAGE, "expect": ["gpu_probe"], "canaries": [ASKS]} | instance)
    chosen = {"docker": DockerSettings(**docker), "triton": TritonSettings(instances={"llm": of_instance})}
    return {role: chosen[role.name] for role in choose(all_roles(), list(chosen))}


def text_of(file: There) -> str:
    """What is in a file."""
    return file.text if isinstance(file.text, str) else file.text.decode()


def serving(wanted: Mapping[Role, Settings], **facts: str) -> Played:
    """A host that serves with these settings."""
    files = files_of(wanted, FACTS | facts)
    cmdline = "".join(f"{word}\0" for word in command_of(text_of(files[UNIT])))
    return HEALTHY.with_(
        {
            ENGINE: said("running /run/docker\ndockerd /usr/sbin/dockerd\npackage docker.io\n"),
            FLAGS: said(),
            FORCE: said("command /usr/sbin/dockerd -H fd://\n"),
            INFO: docker_info(),
            PACKAGES: docker_packages(),
            CONFIG: said(),
            DAMAGED: said(),
            SIGHT: said("0a0a kept yes /triton-llm image:1\n"),
            IMAGE_ID: said(f"{ID}\n"),
            INSPECT: container(),
            INSIDE: said(capture("nvidia-smi/smi_L.txt")),
            OTHERS: said("/etc/systemd/system/triton@llm.service\n"),
            PLAIN: plain(),
            NONE: said(capture("docker/D6_env_none.txt")),
            SHOW: unit(),
            COMMAND: said(cmdline),
            SOCKETS: said("Netid State Recv-Q Send-Q Local Peer\n" + listens("127.0.0.1:8000")),
            SERVER: http(capture("triton/triton_host_v2.json")),
            READY: http(""),
            INDEX: index(),
            REPOSITORY: repository(),
            ASKED: http('{"outputs": [{"name": "OUT", "datatype": "INT32", "data": [2]}]}'),
            INFERENCE: inference(UUID),
            OWED_TO_SERVERS: said(),
            MOUNTED: said("2049:7\n2049:7\n"),
            METRICS: http(capture("triton/triton_host_metrics.txt")),
        },
        facts=facts,
        units={"docker.service": Unit(properties={"NeedDaemonReload": "no"}), "containerd.service": Unit()},
        files={
            **files,
            JSON: document(),
            "/sbin/ldconfig": There(mode=0o755),
            "/srv/triton/llm/models": There(folder=True),
            "/proc/uptime": There("4000.12 15000.00\n"),
        },
    )


def listens(*places: str) -> str:
    """What ``ss`` says of listening TCP sockets."""
    return "".join(f"tcp LISTEN 0 128 {place} 0.0.0.0:*\n" for place in places)
