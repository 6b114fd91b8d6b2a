"""Settings of one instance: what fits together, and arguments that its unit has to have for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provision.errors import SettingsError
from provision.inventory import Host
from provision.inventory.settings import read
from provision.inventory.sources import load
from provision.roles.triton.arguments import options
from provision.roles.triton.instance import Instance
from provision.roles.triton.role import TritonSettings
from tests.unit.examples import IMAGE

PY3 = "nvcr.io/nvidia/tritonserver:24.07-py3"


def refusal(**changes: Any) -> tuple[str, str]:
    """What is wrong below the instance in an inventory with these settings, and the hint."""
    triton = {"instances": {"main": {"image": IMAGE, **changes}}}
    with pytest.raises(SettingsError) as caught:
        read(TritonSettings, Host("n1", vars={"triton": triton}), "triton")
    return caught.value.message.removeprefix("inventory: triton.instances.main."), str(caught.value.hint)


PORT, ADDRESS = "the unit publishes port", "Docker publishes the ports of all addresses"
REPOSITORY, HTTP, HEALTH = "its model repository", "asks over HTTP", "has no such header"
READY = "up and never ready"

REFUSED: dict[str, tuple[str, str]] = {
    "--http-port=9000": (PORT, "use http_port"),
    "--http-port 9000": (PORT, "use http_port"),
    "--http_port=9000": (PORT, "use http_port"),
    "--http-po=9000": (PORT, "use http_port"),
    "--grpc-port=1": (PORT, "use grpc_port"),
    "--metrics-port=1": (PORT, "use metrics_port"),
    "--metrics-p=1": (PORT, "use metrics_port"),
    "--help": ("prints its usage, and ends", "take it out"),
    "--hel": ("prints its usage, and ends", "take it out"),
    "-h": ("has no such option, and ends with its usage", "take it out"),
    "-?": ("has no such option, and ends with its usage", "take it out"),
    "--version": ("has no such option, and ends with its usage", "take it out"),
    "--http-address=127.0.0.1": (ADDRESS, "use address"),
    "--grpc-address=::1": (ADDRESS, "use address"),
    "--metrics-address=0.0.0.0": (ADDRESS, "use address"),
    "--model-repository=/other": (REPOSITORY, "use models"),
    "--model-rep=/other": (REPOSITORY, "use models"),
    "--model-store=/other": (REPOSITORY, "use models"),
    "--model_store=/other": (REPOSITORY, "use models"),
    "--allow-http=false": (HTTP, "take it out"),
    "--allow-http=FALSE": (HTTP, "take it out"),
    "--allow-http=off": (HTTP, "take it out"),
    "--allow_http=0": (HTTP, "take it out"),
    "--allow-h=0": (HTTP, "take it out"),
    "--http-restricted-api=health:key=value": (HEALTH, "take health out"),
    "--http-restricted-api=metadata,health:key=value": (HEALTH, "take health out"),
    "--http-restricted=health:key=value": (HEALTH, "take health out"),
    "--grpc-restricted-protocol=health:key=value": (HEALTH, "take health out"),
    "--exit-timeout-secs=5": ("as long as exit_timeout says", "use exit_timeout"),
    "--exit-timeout=5": ("as long as exit_timeout says", "use exit_timeout"),
    "--id=other": ("the name of its instance", "take it out"),
    "--log-format=default": ("the unit sets ISO8601", "take it out"),
    "--log-f=default": ("the unit sets ISO8601", "take it out"),
    "--exit-on-error=false": (READY, "add --strict-readiness=false"),
    "--exit-on=0": (READY, "add --strict-readiness=false"),
    "--http-max-input-size=1": ("release 25.06 is the first that has it", "take it out"),
    "--allow-client-shm=true": ("release 26.04 is the first that has it", "take it out"),
}


@pytest.mark.parametrize("arg", REFUSED)
def test_arguments_that_take_the_server_from_its_unit_are_refused(arg: str) -> None:
    why, advice = REFUSED[arg]
    message, hint = refusal(args=["--log-verbose=1", arg])
    assert message.startswith(f"args[1]: {options([arg])[0].written}: ")
    assert why in message
    assert advice in hint


def test_what_follows_a_flag_is_not_its_value() -> None:
    args = ["--log-file=x", "-h", "--disable-auto-complete-config", "-h"]
    assert refusal(args=args)[0].startswith("args[1]: -h: ")
    assert refusal(args=args[2:])[0].startswith("args[1]: -h: ")


@pytest.mark.parametrize("arg", ["--http-port=9000", "--allow-http=false", "--exit-on-error=false"])
def test_a_value_may_be_a_word_of_its_own(arg: str) -> None:
    name, value = arg.split("=")
    assert refusal(args=[name, value])[0].startswith(f"args[0]: {name}: ")


TAKEN = [
    ["--allow-http=true"],
    ["--allow-http", "ON"],
    ["--allow-grpc=false"],
    ["--allow-metrics=false"],
    ["--http-restricted-api=model-repository,trace:health=health"],
    ["--exit-on-error=true"],
    ["--exit-on-error=false", "--strict-readiness=false"],
    ["--strict-readiness=true", "--exit-on-error=0", "--strict-readiness", "False"],
    ["--http-thread-count=8"],
    ["--log-verbose=1", "--log-file=/tmp/x", "9000"],
    ["--log-file", "-x", "--log-verbose", "-1"],
    ["--model-config-name=h100"],
    ["--model-control-mode=poll", "--repository-poll-secs=5"],
    ["--backend-config=python,shm-region-prefix-name=a"],
]


@pytest.mark.parametrize("args", TAKEN, ids=" ".join)
def test_other_arguments_are_taken(args: list[str]) -> None:
    assert Instance(image=IMAGE, args=args).args == args


def test_an_image_of_no_known_release_may_have_any_option() -> None:
    assert Instance(image="registry.example/triton:mine", args=["--allow-client-shm=true"])
    assert Instance(image=PY3.replace("24.07", "26.04"), args=["--allow-client-shm=true"])


def test_no_value_of_an_argument_is_in_its_refusal() -> None:
    assert "s3cret" not in "".join(refusal(args=["--http-restricted-api=health:key=s3cret"]))
    assert "s3cret" not in "".join(refusal(args=["-Ds3cret"]))


def test_the_line_of_the_argument_is_told(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    instance = f"        main:\n          image: {IMAGE}\n          args:\n"
    arguments = "            - --log-verbose=1\n            - --http-port=1\n"
    head = "all:\n  hosts:\n    n1:\n  vars:\n    triton:\n      instances:\n"
    file.write_text(head + instance + arguments)
    host = next(host for host in load([file]).hosts.values() if host.name == "n1")
    with pytest.raises(
        SettingsError, match=r"hosts\.yml:11: triton\.instances\.main\.args\[1\]: --http-port: "
    ):
        read(TritonSettings, host, "triton")


@pytest.mark.parametrize(
    ("changes", "loads"),
    [
        ({}, None),
        ({"model_control": "poll"}, None),
        ({"model_control": "explicit"}, []),
        ({"model_control": "explicit", "load": ["a", "b"], "expect": ["b"]}, ["a", "b"]),
        ({"model_control": "explicit", "load": ["*"], "expect": ["b"]}, ["*"]),
        ({"args": ["--model-control-mode=EXPLICIT", "--load-model", "a"], "expect": ["a"]}, ["a"]),
        ({"args": ["--model-control=explicit", "--model-control-mode=none"], "expect": ["a"]}, None),
        ({"args": ["--load-model=a"]}, None),
    ],
)
def test_models_that_triton_is_told_to_load(changes: dict[str, Any], loads: list[str] | None) -> None:
    assert Instance(image=IMAGE, **changes).loads == loads


EXPLICIT = {"model_control": "explicit"}

IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"load": ["a"]}, "load: with model_control none Triton loads all", "model_control: explicit"),
    ({**EXPLICIT, "load": ["*", "a"]}, "load: * is all models", "load: ['*']"),
    ({**EXPLICIT, "expect": ["a"]}, "expect[0]: a: with model control explicit", "load: [a]"),
    (
        {"args": ["--model-control-mode=explicit"], "expect": ["a"]},
        "expect[0]: a: with model control explicit",
        "args: --load-model=a",
    ),
    ({**EXPLICIT, "args": ["--load-model=a"]}, "args[0]: --load-model: the unit", "use model_control"),
    (
        {"model_control": "poll", "args": ["--model-control=none"]},
        "args[0]: --model-control: the unit",
        "use model_control",
    ),
    ({"world_size": 2, "args": ["--load-model=a"]}, "args[0]: --load-model: the unit", "use model_control"),
    ({"world_size": 2, "image": PY3}, f"world_size: {PY3} is no image of TensorRT-LLM", "trtllm"),
    ({"mpi": "orchestrator", "image": PY3}, f"mpi: {PY3} is no image of TensorRT-LLM", "trtllm"),
    ({"world_size": 2, "gpus": [0]}, "world_size: 2 ranks need a GPU each, and gpus has 1", "add GPUs"),
    ({"world_size": 2, "gpus": "none"}, f"gpus: {IMAGE} needs GPUs", "gpus: all"),
    ({"gpus": "none"}, f"gpus: {IMAGE} needs GPUs: import tensorrt_llm ends", "without trtllm"),
    ({"mpi": "orchestrator", "world_size": 2}, "world_size: in orchestrator mode", "world_size: 1"),
    ({"world_size": 10**9}, "world_size: 1000000000 is not at most 64", "Ranks"),
    ({"world_size": 0}, "world_size: 0 is not at least 1", "Ranks"),
    (
        {"world_size": 2, "args": ["--backend-config=python,shm-region-prefix-name=a"]},
        "args[0]: --backend-config: each rank has its own",
        "take it out",
    ),
    ({"gpus": [0, 1, 0]}, "gpus: a GPU stands there twice", "name each once"),
    ({"gpus": []}, "gpus: ", "UUIDs"),
    ({"gpus": ["0"]}, "gpus[0]: '0' is not an integer", "write it without quotes"),
    ({"gpus": ["x"]}, "gpus[0]: 'x' does not match ^(GPU|MIG)-", "UUIDs"),
    ({"env": {"NVIDIA_VISIBLE_DEVICES": "0"}}, "env.NVIDIA_VISIBLE_DEVICES: the unit", "use gpus"),
    ({"env": {"DOCKER_PASSWORD": "s3cret"}}, "env.DOCKER_PASSWORD: the value would", "another name"),
    ({"ulimits": {"nofiles": 1}}, "ulimits.nofiles: Docker knows no limit nofiles", "nofile"),
    ({"ulimits": {"core": -2}}, "ulimits.core: -2 is no limit", "-1 is without a limit"),
    ({"ulimits": {"nofile": -2}}, "ulimits.nofile: -2 is no limit", "nofile: 1048576"),
    ({"ulimits": {"core": 2**63}}, "ulimits.core: Docker takes no limit above 922", "-1"),
    ({"ulimits": {"nofile": -1}}, "ulimits.nofile: Linux starts no container", "nofile: 1048576"),
    ({"ulimits": {"nofile": 2**31}}, "ulimits.nofile: Linux starts no container", "nofile: 1048576"),
    ({"shm_size": "65537g"}, "shm_size: 65537g is more memory than any host has", "16g"),
    ({"shm_size": "9" * 5000}, f"shm_size: {'9' * 30} is more memory", "16g"),
    ({"image": "reg.example:65536/a:1"}, "image: 'reg.example:65536/a:1': no registry has", "name a release"),
    ({"http_port": 65536}, "http_port: 65536 is not at most 65535", "Port"),
    ({"restart": False}, "restart: ", "quote it"),
    ({"capabilities": ["net_raw"]}, "capabilities[0]: Linux has no capability 'net_raw'", "NET_RAW"),
    ({"capabilities": ["NOSUCH"]}, "capabilities[0]: Linux has no capability", "capabilities(7)"),
    ({"mounts": ["/a:b"]}, "mounts[0]: 'b' is no absolute path", "/srv/data:/data:ro"),
    ({"mounts": ["/a:/x", "/b:/x/"]}, "mounts[1]: another folder is mounted at /x", "another path"),
    ({"mounts": ["/a:/models"]}, "mounts[0]: the model repository is mounted", "another path"),
    ({"mounts": ["/a:/b:rx"]}, "mounts[0]: Docker knows no mode 'rx'", "ro, or rw"),
    ({"mounts": ["--privileged"]}, "mounts[0]: --privileged is an option of docker run", "take it out"),
    ({"mounts": ["--env=A=s3cret:/x"]}, "mounts[0]: --env is an option of docker run", "take it out"),
    ({"mounts": ["/a:/b\n/c"]}, "mounts[0]: a mount is one line", "/srv/data:/data:ro"),
    ({"mounts": ["/a\n:/b"]}, "mounts[0]: a mount is one line", "/srv/data:/data:ro"),
    ({"mounts": ["/a:/b:ro\t"]}, "mounts[0]: a mount is one line", "/srv/data:/data:ro"),
    ({"mounts": ["a b:/b"]}, "mounts[0]: 'a b' is neither an absolute path", "/srv/data:/data:ro"),
    ({"mounts": ["cache"]}, "mounts[0]: 'cache' is neither an absolute path", "/srv/data:/data:ro"),
    ({"mounts": [""]}, "mounts[0]: '' is neither an absolute path", "/srv/data:/data:ro"),
    ({"mounts": ["/a:/"]}, "mounts[0]: / of the container is its image", "/srv/data:/data:ro"),
    ({"mounts": ["/a:/.."]}, "mounts[0]: / of the container is its image", "/srv/data:/data:ro"),
    ({"models": "/"}, "models: / is the whole host", "/srv/models"),
    ({"models": "//.."}, "models: / is the whole host", "/srv/models"),
    ({"models": "/srv\n/x"}, "models: '/srv\\n/x' does not match", "repository"),
    ({"mounts": ["/a:/tmp"], "read_only": True}, "mounts[0]: what read_only leaves", "another path"),
    ({"ready_timeout": 86401}, "ready_timeout: 86401 ", "Seconds"),
    ({"exit_timeout": 10**20}, "exit_timeout: ", "Seconds"),
    ({**EXPLICIT, "load": [""]}, "load[0]: ", "Models"),
    ({"injection": "hook"}, "injection: ", "runtime"),
]


@pytest.mark.parametrize(("changes", "says", "hint"), IMPOSSIBLE, ids=[row[1][:40] for row in IMPOSSIBLE])
def test_settings_that_do_not_fit_together_are_refused(changes: dict[str, Any], says: str, hint: str) -> None:
    message, given = refusal(**changes)
    assert message.startswith(says)
    assert hint in f"{given} {message}"
    assert "s3cret" not in f"{given} {message}"


def test_the_second_taker_of_a_port_is_named() -> None:
    instances = {"a": {"image": IMAGE}, "b": {"image": IMAGE, "http_port": 8001}}
    with pytest.raises(ValidationError, match=r"port 8001 is both a\.grpc_port and b\.http_port"):
        TritonSettings.model_validate({"instances": instances})
