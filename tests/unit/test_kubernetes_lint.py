"""Manifests are judged for how they ask for GPUs, and no manifest breaks that."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.cli.manifests import judge, read
from provision.errors import UsageError
from provision.inventory.document import parse_all
from provision.kubernetes.fault import Fault
from provision.kubernetes.images import imports_tensorrt_llm, is_infrastructure, needs_gpu
from provision.kubernetes.lint import faults
from provision.kubernetes.objects import POD_OF
from provision.kubernetes.quantities import QuantityError, count, is_gpu, meant

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "tests/data/manifests"
EXPECTED = (MANIFESTS / "expected.txt").read_text("utf-8").splitlines()
TRTLLM = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"


def said(text: str) -> list[Fault]:
    return faults(parse_all(text, "f"))


@pytest.mark.parametrize(
    "file", [*sorted(MANIFESTS.glob("*.yaml")), MANIFESTS / "json.json"], ids=lambda file: file.name
)
def test_a_manifest_has_the_findings_of_the_table(file: Path) -> None:
    found = [fault.text.split("\n")[0] for fault in faults(parse_all(file.read_text("utf-8"), file.name))]
    assert found == [line for line in EXPECTED if line.startswith(f"{file.name}:")]


def test_the_table_names_manifests_that_are_there() -> None:
    assert {line.partition(":")[0] for line in EXPECTED} <= {file.name for file in MANIFESTS.iterdir()}


@pytest.mark.parametrize("file", sorted(MANIFESTS.glob("*.yaml")), ids=lambda f: f.name)
def test_a_finding_stands_at_a_word_of_its_line(file: Path) -> None:
    """The place is the start of a key or an element, and not of the space before it."""
    lines = file.read_text("utf-8").splitlines()
    for fault in faults(parse_all(file.read_text("utf-8"), file.name)):
        line, column = lines[fault.where.line - 1], fault.where.column
        assert not line[column - 1].isspace()
        assert column == 1 or line[column - 2] in " {["


@pytest.mark.parametrize("kind", POD_OF)
def test_every_kind_with_pods_is_judged(kind: str) -> None:
    spec: Any = {"containers": [{"name": "c", "image": TRTLLM}]}
    for step in reversed(POD_OF[kind]):
        spec = {step: spec}
    (fault,) = said(json.dumps({"kind": kind, "metadata": {"name": "n"}, **spec}))
    assert fault.severity == "error"
    assert fault.message.startswith(f"{kind} n, container c: ")
    assert fault.message.endswith("import tensorrt_llm ends in NVML Shared Library Not Found")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("nvidia.com/gpu", None),
        ("nvidia.com/gpu.shared", None),
        ("nvidia.com/mig-2g.20gb", None),
        ("nvidia.com/mig-1g.10gb.me", None),
        ("nvidia.com/gpumem", None),  # of other device plugins
        ("amd.com/gpu", None),
        ("gpu.intel.com/i915", None),
        ("cpu", None),
        ("nvidia/gpu", "nvidia.com/gpu"),
        ("nvidia.com/gpus", "nvidia.com/gpu"),
        ("nvidia.com/GPU", "nvidia.com/gpu"),
        ("nvidia-gpu", "nvidia.com/gpu"),
        ("alpha.kubernetes.io/nvidia-gpu", "nvidia.com/gpu"),
        ("gpu", "nvidia.com/gpu"),
        ("nvidia.con/gpu", "nvidia.com/gpu"),
        ("nvidia.com/mig-1g.5gb+me", "nvidia.com/mig-1g.10gb"),
        ("nvidia.com/MIG-1g.5gb", "nvidia.com/mig-1g.10gb"),
    ],
)
def test_names_of_resources(name: str, right: str | None) -> None:
    assert meant(name) == right
    assert not (is_gpu(name) and right)


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), ("8", 8), ("1000m", 1), ("2.0", 2), (4.0, 4), ("0", 0), (0, 0), ("1e1", 10), ("+1", 1)],
)
def test_quantities_that_are_gpus(value: Any, number: int) -> None:
    assert count(value) == number


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0.5, "cannot be divided"),
        ("500m", "cannot be divided"),
        ("5u", "cannot be divided"),
        (-1, "less than none"),
        (16**999, "more than any node"),
        ("1T", "more than any node"),
        ("1Ki1", "is no number"),
        (float("nan"), "is no number"),
        (float("inf"), "is no number"),
        (True, "is no number"),
        (None, "is no number"),
        ("", "is no number"),
        (" 1", "is no number"),
        ("٣", "is no number"),
        ("9" * 9999, "is no number"),
        (["1"], "is no number"),
    ],
)
def test_quantities_that_are_none(value: Any, says: str) -> None:
    with pytest.raises(QuantityError, match=says):
        count(value)


@pytest.mark.parametrize(
    ("image", "needs", "trtllm", "infrastructure"),
    [
        (TRTLLM, True, True, False),
        ("registry:5000/nvidia/tritonserver@sha256:00", True, False, False),
        ("tritonserver", True, False, False),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.2.0", True, True, False),
        ("nvcr.io/nim/nvidia/nv-embedqa-e5-v5:1.10", True, False, False),
        ("nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0", True, False, False),
        ("docker.io/nvidia/cuda:12.4.1-base-ubuntu22.04", True, False, False),
        ("nvcr.io/nvidia/pytorch:25.01-py3", True, False, False),
        ("pytorch/pytorch:2.9", False, False, False),
        ("nvcr.io/nvidia/tritonserver:24.07-py3-sdk", False, False, False),
        ("nvcr.io/nvidia/k8s-device-plugin:v0.18.0", False, False, True),
        ("nvcr.io/nvidia/gpu-operator:v25.10", False, False, True),
        ("nginx", False, False, False),
        ("", False, False, False),
        (":/@:", False, False, False),
    ],
)
def test_images(image: str, needs: bool, trtllm: bool, infrastructure: bool) -> None:
    assert (needs_gpu(image), imports_tensorrt_llm(image), is_infrastructure(image)) == (
        needs,
        trtllm,
        infrastructure,
    )


WORDS = st.sampled_from(
    [
        "name",
        "image",
        "resources",
        "limits",
        "requests",
        "claims",
        "env",
        "value",
        "valueFrom",
        "args",
        "volumeMounts",
        "mountPath",
        "emptyDir",
        "medium",
        "hostPath",
        "path",
        "nvidia.com/gpu",
        "nvidia/gpu",
        "gpu",
        "runtime",
        "NVIDIA_VISIBLE_DEVICES",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    WORDS,
    st.sampled_from([TRTLLM, "nvidia/cuda:12", "/dev/shm", "/dev/nvidia0", "void", "1", "0", 10**400]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(
    container=VALUES,
    pod=VALUES,
    place=st.sampled_from(["containers", "initContainers", "ephemeralContainers"]),
)
def test_whatever_stands_in_a_containers_place(container: Any, pod: Any, place: str) -> None:
    spec = {**(pod if isinstance(pod, dict) else {"volumes": pod}), place: [container]}
    text = json.dumps({"kind": "Pod", "metadata": container, "spec": spec})
    for fault in said(text):
        assert fault.where.line in (0, 1)
        assert fault.where.column <= len(text)
        assert json.dumps(fault.document())


HOSTILE = {
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 108)),
    "an alias of itself": b"kind: Pod\nspec: &a {containers: *a}\n",
    "tabs": b"kind: Pod\nspec:\n\tcontainers: []\n",
    "NUL": b"kind: Pod\0\n",
    "half a surrogate": b'kind: "\\ud800"\n',
    "no UTF-8": b"kind: \xff\n",
    "depth": b"a: " + b"[" * 5000,
    "a key twice": b"kind: Pod\nkind: Pod\n",
    "a tag": b"kind: !!python/object:os.system Pod\n",
    "digits": b"kind: Pod\nspec: " + b"9" * 9999,
    "hexadecimal digits": b"kind: Pod\nspec: 0x" + b"f" * 9999,
    "a key of digits": b"? 0x" + b"f" * 9999 + b"\n: b\n",
    "a date": b"kind: 2024-99-99\n",
    "a list as key": b"? [a]\n: b\n",
    "an open quote": b'kind: "Pod\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_a_sentence(name: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(HOSTILE[name])
    found = judge([str(file)])
    assert found.exit_code == 2
    (error,) = found.unreadable
    assert str(error).startswith(f"{file}:")
    assert error.hint


@pytest.mark.parametrize(
    "text",
    [
        "kind: [Pod]",
        "kind: List\nitems: []",
        "kind: Values\nreplicas: 3\n",
        "kind: CronTab\nspec: {container: []}",
        "kind: DeploymentConfig",
        "kind: PodMonitor",
        "kind: NodePool",
        "kind: FlinkDeployment",
        "kind: AllowList\nspec: {}",
        "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {tasks: []}",
        "apiVersion: example.com/v1\nkind: Pods",
        "kind: ReplicaSetList\nitems: []",
    ],
    ids=range(12),
)
def test_what_asks_for_nothing(text: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text, "utf-8")
    found = judge([str(file)])
    assert (found.exit_code, found.faults, found.files) == (0, (), 1)


@pytest.mark.parametrize(
    "text",
    ["", "---\n---\n", "# nothing\n", "7", "[a, b]", "no such chart\n", "all: {hosts: {}}", "replicas: 3\n"],
)
def test_what_holds_nothing_to_judge_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text, "utf-8")
    found = judge([str(file)])
    assert (found.exit_code, found.files) == (2, 0)
    assert [str(one) for one in found.unreadable] == [f"{file}: it holds no object of Kubernetes"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    (error,) = judge(["-"]).unreadable
    assert str(error) == "standard input: it holds no object of Kubernetes"
    assert error.hint == "see whether the command before it failed"
    (error,) = judge([str(tmp_path)]).unreadable
    assert str(error) == f"{tmp_path}: it holds no object of Kubernetes"
    (tmp_path / "g.yaml").write_bytes((MANIFESTS / "right.yaml").read_bytes())
    found = judge([str(tmp_path)])
    assert (found.exit_code, found.files) == (0, 2), "a folder may hold other files"


def test_the_null_device_holds_nothing() -> None:
    assert judge(["/dev/null"]).exit_code == 2


NAMED = "metadata: {name: n}\n"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("kind: Deploymnet", "1:1: error: 'Deploymnet' is not a kind", "did you mean Deployment?"),
        ("kind: deployment", "1:1: error: 'deployment' is not a kind", "did you mean Deployment?"),
        ("kind: pod", "1:1: error: 'pod' is not a kind", "did you mean Pod?"),
        ("kind: Pods", "1:1: error: 'Pods' is not a kind", "did you mean Pod?"),
        ("kind: Cronjob", "1:1: error: 'Cronjob' is not a kind", "did you mean CronJob?"),
        ("apiVersion: apps/v1\nkind: StatefullSet", "2:1: error: 'StatefullSet'", "did you mean Stateful"),
        ("kind: List\nitems: [{kind: pod}]", "2:10: error: 'pod' is not a kind", "did you mean Pod?"),
        ("kind: Pod", "1:1: error: Pod ?: spec is missing", "spec must be a mapping"),
        (f"{NAMED}kind: Pod\nspec: []", "3:1: error: Pod n: spec must be a mapping, and is a list", "spec"),
        (f"{NAMED}kind: Pod\nspec:", "3:1: error: Pod n: spec must be a mapping, and is null", "spec: {"),
        (f"{NAMED}kind: Pod\nsepc: {{}}", "3:1: error: Pod n: spec is missing, and", "did you mean spec?"),
        (
            "kind: Pod\nspec: {initContainers: [], container: []}",
            "2:28: error: Pod ?: spec.containers is missing, and 'container' does nothing",
            "did you mean containers?",
        ),
        ("kind: Pod\nspec: {}", "2:1: error: Pod ?: spec.containers is missing", "spec.containers must be"),
        ("kind: Pod\nspec: {containers: 0xF}", "2:8: error: Pod ?: spec.containers must be", "containers"),
        ("kind: Pod\nspec: {containers: []}", "2:8: error: Pod ?: spec.containers is empty", "containers: ["),
        ("kind: Job\nspec: {}", "2:1: error: Job ?: spec.template is missing", "spec.template must be"),
        (
            "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {x: 1}}}}}",
            "3:40: error: CronJob ?: spec.jobTemplate.spec.template.spec.containers is missing",
            "spec.jobTemplate.spec.template.spec.containers must be a list",
        ),
        ("kind: List\nitems: {a: b}", "2:1: error: List: items must be a list, and is a map", "items: ["),
        ("kind: PodList\nitem: []", "2:1: error: PodList: items is missing, and", "did you mean items?"),
    ],
)  # fmt: skip
def test_objects_whose_pods_cannot_be_judged(text: str, says: str, hint: str) -> None:
    (fault,) = said(text)
    assert fault.text.startswith(f"f:{says}")
    assert fault.hint.startswith(hint)


@pytest.mark.parametrize("value", ["all", "0", "void", "none", ""])
def test_visible_devices_beside_a_limit(value: str) -> None:
    container = {
        "name": "c",
        "image": TRTLLM,
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": value}],
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    }
    spec = {"runtimeClassName": "nvidia", "containers": [container]}
    (fault,) = said(json.dumps({"kind": "Pod", "spec": spec}))
    assert fault.severity == "warning"
    away = "give it other GPUs than those" if value in ("all", "0") else "keep away the GPUs"
    assert f"NVIDIA_VISIBLE_DEVICES may {away} that were scheduled" in fault.message


@pytest.mark.parametrize("value", ["void", "none", ""])
def test_who_has_no_visible_devices_does_not_get_all(value: str) -> None:
    container = {"image": TRTLLM, "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": value}]}
    spec = {"runtimeClassName": "nvidia", "containers": [container]}
    (fault,) = said(json.dumps({"kind": "Pod", "spec": spec}))
    assert fault.severity == "error"
    assert "without a GPU: import tensorrt_llm ends in" in fault.message


@pytest.mark.parametrize(
    "text",
    [
        "image: {{ .Values.image }}\n",
        "{{- if .Values.gpu }}\nkind: Pod\n{{- end }}\n",
        'kind: Pod\nimage: "{{ .Values.image }}:{{ .Chart.AppVersion }}"\n',
        '{{ include "x" . }}\n',
    ],
)
def test_templates_of_helm_are_to_be_rendered_first(text: str, tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="it is a template of Helm") as caught:
        read(str(file))
    assert caught.value.hint == "render it first: helm template CHART | inv lint-manifest -"


def test_json_that_is_no_yaml_has_no_lines() -> None:
    text = json.dumps({"kind": "Pod", "spec": {"containers": [{"image": TRTLLM, "args": ["\U0001f600"]}]}})
    (fault,) = said(text)
    assert fault.text.startswith("f: error: Pod ?, container ?: ")


def test_braces_of_others_are_no_template(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text('kind: ConfigMap\ndata: {a: "{{ $labels.instance }} is down"}\n')
    assert judge([str(file)]).exit_code == 0


def inv(*arguments: str, given: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "tasks.py"), "lint-manifest", *arguments]
    return subprocess.run(
        argv, cwd=folder, input=given, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_reads_files_folders_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "plan").write_bytes((MANIFESTS / "right.yaml").read_bytes())  # also the name of a task
    (tmp_path / "sub/a.yml").write_bytes((MANIFESTS / "no_runtime_class.yaml").read_bytes())
    (tmp_path / "sub/readme.txt").write_text("{{ no manifest")
    done = inv("plan", "sub", "-", given=(MANIFESTS / "pod_level.yaml").read_text(), folder=tmp_path)
    assert done.returncode == 3
    assert [line.split(": ")[0] for line in done.stdout.splitlines()[::2]] == [
        "sub/a.yml:9:11",
        "standard input:9:7",
        "standard input:12:7",
    ]
    assert done.stderr == "2 errors, 1 warning in 3 files, 3 objects with Pods\n"


def test_warnings_alone_are_no_failure() -> None:
    done = inv(str(MANIFESTS / "no_runtime_class.yaml"), "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["schema"]) == (0, 1)
    assert [found["severity"] for found in document["findings"]] == ["warning"]
    assert set(document["findings"][0]) == {"file", "line", "column", "severity", "message", "hint"}


def test_an_unreadable_file_hides_no_other(tmp_path: Path) -> None:
    found = judge([str(tmp_path / "missing.yaml"), str(MANIFESTS / "pod_level.yaml"), str(tmp_path), ""])
    assert found.exit_code == 2
    assert (len(found.faults), found.files) == (2, 1)
    assert [str(error) for error in found.unreadable] == [
        f"{tmp_path}/missing.yaml: No such file or directory",
        f"{tmp_path}: the folder holds no manifest",
        "a manifest is named by an empty word",
    ]


def test_nothing_named_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no manifests are named"):
        judge([])


def test_a_name_makes_no_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "forged.yaml"
    image = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"
    file.write_text(
        'metadata: {name: "x\\n::warning::forged"}\nkind: Pod\n'
        f"spec: {{containers: [{{name: a, image: '{image}'}}]}}\n"
    )
    found = judge([str(file)]).faults
    assert any("forged" in fault.text for fault in found)
    assert all(len(fault.text.splitlines()) == 2 for fault in found)
