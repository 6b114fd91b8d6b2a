"""What ``inv render --kubernetes`` writes: golden files, Kubernetes' own schemas, and our own judgement."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.cli.exported import export, gpu_count
from provision.cli.options import Options
from provision.errors import InventoryError, UsageError
from provision.inventory import sources
from provision.inventory.document import parse_all
from provision.kubernetes.dump import dumped
from provision.kubernetes.lint import faults
from provision.kubernetes.manifest import Manifests, Node, kubernetes_name, manifests
from provision.roles.triton.role import TritonSettings
from tests.roles.test_role import compare

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/kubernetes"
OLDEST = "1.30"
"""Of the versions whose schemas manifests must fit; the other one is the newest of the library."""

TRTLLM = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"
PLAIN = "nvcr.io/nvidia/tritonserver:24.07-py3"
SECRET = "s3cret-value"


def node(name: str, instances: Any, gpus: int | None = None) -> Node:
    return Node(name, TritonSettings.model_validate({"instances": instances}), gpus)


def one(on_host: int | None = 8, **changes: Any) -> Manifests:
    return manifests([node("gpu-01", {"main": {"image": PLAIN, **changes}}, on_host)])


def deployment(found: Manifests) -> Any:
    return next(item for item in found.objects if item["kind"] == "Deployment")


def pod(found: Manifests) -> Any:
    return deployment(found)["spec"]["template"]["spec"]


def container(found: Manifests) -> Any:
    return pod(found)["containers"][0]


LLM = {
    "image": TRTLLM,
    "models": "/srv/models/llm",
    "shm_size": "16g",
    "ready_timeout": 905,
    "exit_timeout": 60,
    "args": ["--model-control-mode=poll", "--log-verbose=1"],
}
HALVES = {
    "llm-a": {**LLM, "gpus": [0, 1, 2, 3]},
    "llm-b": {**LLM, "gpus": [4, 5, 6, 7], "http_port": 8010, "grpc_port": 8011, "metrics_port": 8012},
}
FULL = {
    "image": f"registry.example.com:5000/tritonserver:24.07@sha256:{'0' * 64}",
    "gpus": ["GPU-aaaa", "GPU-bbbb"],
    "user": "triton-server",
    "env": {"HF_TOKEN": SECRET, "LD_PRELOAD": "/opt/$(x)/lib.so"},
    "args": [f"--http-header-token={SECRET}", "--load-model=$(cat)", "--id: no", "yes", "--api-key", SECRET],
    "mounts": ["/srv/cache:/root/.cache", "/etc/ssl/certs:/etc/ssl/certs:ro"],
}
FLEETS: dict[str, list[Node]] = {
    "one": [node("gpu-01", {"main": {"image": PLAIN}}, 8)],
    "halves_on_two_hosts": [node("gpu-01.example.com", HALVES), node("gpu-02.example.com", HALVES)],
    "two_ways": [
        node("gpu-01", {"vision": {"image": PLAIN, "gpus": [0]}}),
        node("gpu-02", {"vision": {"image": PLAIN, "gpus": [0, 1]}}),
        node("gpu-03", {"vision": {"image": PLAIN, "gpus": [3], "address": "0.0.0.0", "canary": False}}),
    ],
    "on_the_cpu": [node("gpu-01", {"cpu": {"image": PLAIN, "gpus": "none", "env": {"MODE": "x"}}})],
    "full": [
        Node(
            "gpu-01",
            TritonSettings.model_validate(
                {
                    "instances": {"Main_1": FULL},
                    "registry_logins": {"registry.example.com:5000": {"user": "u", "password": SECRET}},
                }
            ),
        )
    ],
}


@pytest.mark.parametrize("name", FLEETS)
def test_golden_manifests(name: str, request: pytest.FixtureRequest) -> None:
    found = manifests(FLEETS[name])
    secrets = "".join(f"# {secret.command}\n" for secret in found.secrets)
    update = request.config.getoption("--update-golden")
    compare(GOLDEN / f"{name}.yaml", secrets + dumped(found.objects), update=update)


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", FLEETS)
def test_manifests_fit_the_schemas_of_kubernetes(name: str, version: str) -> None:
    objects = list(yaml.safe_load_all(dumped(manifests(FLEETS[name]).objects)))
    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)
    assert {item["kind"] for item in objects} >= {"Deployment", "Service"}


def test_the_schemas_know_a_wrong_field() -> None:
    (*_, item) = yaml.safe_load_all(dumped(manifests(FLEETS["one"]).objects))
    item["spec"]["shm_size"] = "1g"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, OLDEST, strict=True)


@pytest.mark.parametrize("name", FLEETS)
def test_our_own_judgement_finds_nothing(name: str) -> None:
    assert faults(parse_all(dumped(manifests(FLEETS[name]).objects), name)) == []


@pytest.mark.parametrize("name", FLEETS)
def test_no_secret_is_written(name: str) -> None:
    found = manifests(FLEETS[name])
    assert SECRET not in dumped(found.objects) + "".join(secret.command for secret in found.secrets)


def test_what_stands_in_secrets_is_named() -> None:
    env, login = manifests(FLEETS["full"]).secrets
    assert env.keys == ("HF_TOKEN", "HTTP_HEADER_TOKEN_5", "API_KEY_10")
    assert login.registry == "registry.example.com:5000"
    asked = {entry["name"]: entry for entry in container(manifests(FLEETS["full"]))["env"]}
    assert asked["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": env.name, "key": "HF_TOKEN"}
    assert asked["LD_PRELOAD"]["value"] == "/opt/$$(x)/lib.so", "the kubelet would expand $(x)"


@pytest.mark.parametrize(
    ("gpus", "on_host", "limit"),
    [
        ("all", 8, {"nvidia.com/gpu": 8}),
        ([0], 8, {"nvidia.com/gpu": 1}),
        ([3, 5], None, {"nvidia.com/gpu": 2}),
        (["GPU-1", "GPU-2"], None, {"nvidia.com/gpu": 2}),
    ],
)
def test_the_number_of_gpus(gpus: Any, on_host: int | None, limit: dict[str, int]) -> None:
    found = one(on_host, gpus=gpus)
    assert container(found)["resources"] == {"limits": limit}
    assert pod(found)["runtimeClassName"] == "nvidia"
    assert [item["kind"] for item in found.objects] == ["RuntimeClass", "Deployment", "Service"]


def test_a_read_only_image_has_a_folder_to_write_in() -> None:
    found = one(8, gpus=[0], read_only=True)
    assert container(found)["securityContext"]["readOnlyRootFilesystem"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container(found)["volumeMounts"]
    assert {"name": "tmp", "emptyDir": {"medium": "Memory"}} in pod(found)["volumes"]


def test_without_gpus_none_are_given() -> None:
    found = one(gpus="none")
    assert "resources" not in container(found)
    assert "runtimeClassName" not in pod(found)
    assert container(found)["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    assert [item["kind"] for item in found.objects] == ["Deployment", "Service"]


@pytest.mark.parametrize(
    ("changes", "says", "hint"),
    [
        ({"gpus": "all"}, "must be told how many", "--gpus 8, or a variable of the host: gpu_count: 8"),
        ({"gpus": ["MIG-1"]}, "MIG-1", "leave the host out"),
        ({"gpus": [0], "user": "me"}, "user 'me'", "user: 1000:1000"),
        ({"gpus": [0], "mounts": ["cache:/c"]}, "'cache:/c' is a volume of Docker", "/FOLDER/"),
        ({"gpus": [0], "mounts": ["/c"]}, "'/c' is a volume of Docker", "/FOLDER/"),
        ({"gpus": [0], "mounts": ["/c:/c:rshared"]}, "not: rshared", "ro, rw"),
    ],
)
def test_what_kubernetes_has_nothing_for(changes: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        one(None, **changes)
    assert hint in (caught.value.hint or "")


def test_every_rank_needs_a_gpu() -> None:
    with pytest.raises(UsageError, match=r"world_size 2, .* asks for nvidia\.com/gpu: 1") as caught:
        one(1, image=TRTLLM, world_size=2)
    assert caught.value.hint == "--gpus 2, or a variable of the host: gpu_count: 2"
    assert container(one(2, image=TRTLLM, world_size=2))["resources"] == {"limits": {"nvidia.com/gpu": 2}}


def test_hosts_without_instances_are_refused() -> None:
    with pytest.raises(UsageError, match="none of the hosts has an instance"):
        manifests([node("gpu-01", {})])


@pytest.mark.parametrize(
    ("fleet", "replicas"),
    [
        ("halves_on_two_hosts", {"triton-llm-a": 2, "triton-llm-b": 2}),
        ("two_ways", {"triton-vision-gpu-01": 2, "triton-vision-gpu-02": 1}),
    ],
)
def test_an_instance_that_hosts_have_alike_is_one_deployment(fleet: str, replicas: dict[str, int]) -> None:
    found = [item for item in manifests(FLEETS[fleet]).objects if item["kind"] == "Deployment"]
    assert {item["metadata"]["name"]: item["spec"]["replicas"] for item in found} == replicas


def test_other_values_of_secrets_are_other_deployments() -> None:
    nodes = [node(f"n{v}", {"main": {"image": PLAIN, "gpus": [0], "env": {"A": v}}}) for v in ("x", "y")]
    assert [secret.name for secret in manifests(nodes).secrets] == [
        "triton-main-nx-env",
        "triton-main-ny-env",
    ]


def test_two_instances_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match=r"a_b and a\.b would both be triton-a-b"):
        manifests([node("gpu-01", {"a_b": {"image": PLAIN, "gpus": [0]}, "a.b": {**FULL, **PORTS}})])


PORTS = {"http_port": 9000, "grpc_port": 9001, "metrics_port": 9002}


def test_the_server_ends_before_its_pod() -> None:
    found = one(exit_timeout=120)
    assert "--exit-timeout-secs=120" in container(found)["args"]
    assert pod(found)["terminationGracePeriodSeconds"] == 135


@pytest.mark.parametrize(("timeout", "times"), [(300, 30), (301, 31), (10, 1)])
def test_loading_may_take_its_time(timeout: int, times: int) -> None:
    probe = container(one(ready_timeout=timeout))["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (10, times)


def test_clients_keep_their_ports() -> None:
    found = one(**PORTS)
    (service,) = [item for item in found.objects if item["kind"] == "Service"]
    assert [port["port"] for port in service["spec"]["ports"]] == [9000, 9001, 9002]
    assert [port["containerPort"] for port in container(found)["ports"]] == [8000, 8001, 8002]
    assert service["spec"]["selector"] == deployment(found)["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("size", "limit"), [("1g", "1Gi"), ("512m", "512Mi"), ("9k", "9Ki"), ("7", "7"), ("7b", "7")]
)
def test_shared_memory(size: str, limit: str) -> None:
    assert pod(one(shm_size=size))["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": limit}


@given(
    st.text(alphabet=st.characters(codec="ascii"), max_size=90).filter(
        lambda text: re.search("[A-Za-z0-9]", text)
    )
)
@settings(max_examples=100, deadline=None)
def test_names_are_valid_in_kubernetes(text: str) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", kubernetes_name(f"triton-{text}"))


def test_long_names_that_begin_alike_differ() -> None:
    assert kubernetes_name("a" * 99 + "b") != kubernetes_name("a" * 99 + "c")


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=12)
    | st.sampled_from(
        [
            "yes",
            "y",
            "No",
            "null",
            "~",
            "1e3",
            "0o17",
            "0x1f",
            "1_0",
            ".5",
            "1:30",
            "2024-01-01",
            "=",
            "<<",
            "'",
            '"',
            "#",
            "a:",
        ]
    )
)
def test_texts_stay_texts(text: str) -> None:
    """In the way that they are written, too: what another reader takes for a number stands in quotes."""
    written = dumped([{"a": [text]}])
    assert yaml.safe_load(written) == {"a": [text]}
    assert '"' in written or re.search(r"- [A-Za-z/][\w/.:=-]*$", written, re.MULTILINE)


FLEET = """
all:
  hosts:
    gpu-01: {gpu_count: 4, ansible_host: 10.0.0.1}
    gpu-02: {gpu_count: 8}
  vars:
    triton: {instances: {main: {image: nvcr.io/nvidia/tritonserver:24.07-py3}}}
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.chdir(tmp_path)
    Path("hosts.yml").write_text(FLEET)
    return Options(hosts="all", inventory="hosts.yml")


def test_the_command_writes_one_file_that_others_can_read(options: Options) -> None:
    argv = [sys.executable, str(ROOT / "tasks.py"), "render", "--inventory", "hosts.yml", "--hosts", "all"]
    argv += ["--kubernetes", "--out", "k8s"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "written: k8s/kubernetes.yaml\n")
    file = Path("k8s/kubernetes.yaml")
    assert file.stat().st_mode & 0o777 == 0o644
    counts = [
        item["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        for item in yaml.safe_load_all(file.read_text())
        if item["kind"] == "Deployment"
    ]
    assert counts == [4, 8]


def test_the_option_counts_for_all_hosts(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    export(options, "", kubernetes=True, monitoring=False, gpus="2")
    out = capsys.readouterr().out
    assert out.count("nvidia.com/gpu: 2\n") == 1
    assert "replicas: 2\n" in out


@pytest.mark.parametrize("count", ["0", "-1", "true", "eight", "1.5", "[8]"])
def test_a_number_of_gpus_that_is_none(count: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(FLEET.replace("gpu_count: 8", f"gpu_count: {count}"))
    host = sources.load([tmp_path / "hosts.yml"]).hosts["gpu-02"]
    with pytest.raises(InventoryError, match=r"hosts\.yml:5: gpu_count must be a number of GPUs"):
        gpu_count(host)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"kubernetes": True, "monitoring": True}, "two documents"),
        ({"gpus": 8}, "--gpus is for manifests alone"),
        ({"kubernetes": True, "gpus": "-8"}, "--gpus -8: not a number of GPUs from 1 to 1024"),
        ({"kubernetes": True, "gpus": "0"}, "--gpus 0: not a number of GPUs from 1 to 1024"),
        ({"kubernetes": True, "gpus": "5000"}, "--gpus 5000: not a number of GPUs from 1 to 1024"),
        ({"kubernetes": True, "gpus": "eight"}, "--gpus eight: not a number of GPUs from 1 to 1024"),
        ({"kubernetes": True, "out": "hosts.yml"}, "hosts.yml/kubernetes.yaml: File exists"),
    ],
)
def test_usage_errors(chosen: dict[str, Any], says: str, options: Options) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        export(options, **{"out": "", "kubernetes": False, "monitoring": False, "gpus": "", **chosen})
    assert caught.value.hint


def test_the_command_writes_targets_alone(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    export(options, "", kubernetes=False, monitoring=True, gpus="")
    said = capsys.readouterr()
    assert [entry["targets"] for entry in json.loads(said.out)] == [["10.0.0.1:8002"], ["gpu-02:8002"]]
    assert said.err.startswith(
        "warning: gpu-[01-02]: triton instance main has its metrics on 127.0.0.1 alone"
    )
