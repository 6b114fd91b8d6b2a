"""The suite's verdicts: evidence in, of a host with an H100 or with one thing broken; verdicts out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from provision.connection.login import Login
from provision.errors import ProbeError, UnreachableError, UsageError
from provision.facts import Facts, Gpu
from provision.probe import Output, Probe
from provision.roles import all_roles, choose
from provision.roles.docker.role import DockerSettings
from provision.roles.driver.health import FIELDS
from provision.roles.driver.role import LEFT_ALONE, DriverSettings
from provision.roles.toolkit.role import ToolkitSettings
from provision.roles.triton.role import CANARY_MODEL, Instance, TritonSettings
from provision.run.host import Target
from provision.verify.evidence import Answered, Evidence
from provision.verify.outcome import HostResult, VerifyResult
from provision.verify.suite import verify
from tests.unit.examples import REPO, repo

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "h100-580"
UUID = "GPU-00000000-1111-2222-3333-444444444444"
OTHER = "GPU-99999999-1111-2222-3333-444444444444"
IMAGE = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"
TAB = (
    "   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0"
)
QUERY_40 = [
    "index", "uuid", "name", "serial", "pci.bus_id", "driver_version", "vbios_version", "compute_cap",
    "persistence_mode", "ecc.mode.current", "ecc.mode.pending", "ecc.errors.corrected.volatile.total",
    "ecc.errors.uncorrected.volatile.total", "ecc.errors.uncorrected.aggregate.total",
    "retired_pages.pending", "mig.mode.current", "mig.mode.pending", "pstate", "temperature.gpu",
    "temperature.memory", "power.draw", "power.limit", "enforced.power.limit", "power.default_limit",
    "clocks.current.sm", "clocks.max.sm", "clocks_event_reasons.active", "pcie.link.gen.current",
    "pcie.link.gen.max", "pcie.link.width.current", "pcie.link.width.max", "compute_mode",
    "memory.total", "memory.used", "memory.reserved", "gpu_recovery_action",
    "inforom.checksum_validation", "gsp.mode.current", "fabric.state", "fabric.status",
]  # fmt: skip
"""The fields of the captured query."""


def capture(name: str) -> str:
    return (CAPTURES / name).read_text(encoding="utf-8")


def said(text: str, code: int = 0) -> Output:
    return Output(code, text.encode())


def missing(program: str) -> Output:
    return Output(
        127, b"", f"timeout: failed to run command '{program}': No such file or directory\n".encode()
    )


def http(body: str, status: str = "200 OK") -> Output:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    )
    return said(head + body)


REFUSED = Output(
    1, b"", b"http: connect: Connection refused\nhttp: line 1: /dev/tcp/127.0.0.1/8000: Connection refused"
)


def row() -> dict[str, str]:
    """The captured GPU's value of every field."""
    values = capture("nvidia-smi/smi_query_verify40.csv").splitlines()[1].split(", ")
    return dict(zip(QUERY_40, values, strict=True)) | {
        "remapped_rows.failure": "No",
        "remapped_rows.pending": "No",
    }


def gpus(*rows: Mapping[str, str]) -> Output:
    fields = ("index", "uuid", "pci.bus_id", "driver_version", "persistence_mode")
    return said("".join(", ".join(r[field] for field in fields) + "\n" for r in rows))


def health(**changed: str) -> Output:
    values = row() | {name.replace("__", "."): value for name, value in changed.items()}
    return said(",".join(FIELDS) + "\n" + ", ".join(values[field] for field in FIELDS) + "\n")


def step(name: str, text: str = "", code: int = 0) -> str:
    return f"== {name}\n{text}\n== exit {code}\n"


def plain(nvml: str = "", smi: str = "", llm: str = "") -> Output:
    """A plain container's steps; a text instead of "" is the error of that step."""
    smi_step = step("gpus", smi, 127) if smi else step("gpus", capture("nvidia-smi/smi_L.txt"))
    steps = step("nvml", nvml, int(bool(nvml))) + smi_step + step("tensorrt_llm", llm, int(bool(llm)))
    return said("\n== NVIDIA Triton Inference Server ==\n\n" + steps)


def inference(*uuids: str) -> Output:
    outputs = [
        {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["is anybody there?"]},
        {"name": "GPUS", "datatype": "BYTES", "shape": [len(uuids)], "data": list(uuids)},
    ]
    return http(json.dumps({"model_name": CANARY_MODEL, "model_version": "1", "outputs": outputs}))


def unit(**changed: str) -> Output:
    properties = {
        "ActiveState": "active",
        "SubState": "running",
        "Result": "success",
        "NRestarts": "0",
        "ExecMainStartTimestampMonotonic": "58657547",
        "Enabled": "enabled",
        "Uptime": "4000.12 15000.00",
    }
    return said("".join(f"{key}={value}\n" for key, value in (properties | changed).items()))


def index(*models: tuple[str, str]) -> Output:
    ours = [{"name": CANARY_MODEL, "version": "1", "state": "READY"}]
    more = [{"name": name, "version": "1", "state": "UNAVAILABLE", "reason": why} for name, why in models]
    return http(json.dumps(json.loads(capture("triton/triton_host_index.json")) + ours + more))


def ports(**changed: str) -> Output:
    settings: dict[str, Any] = json.loads(capture("docker/G6_inspect.json"))[0]["NetworkSettings"]["Ports"]
    for bindings in settings.values():
        bindings[0].update(changed)
    return said(json.dumps(settings))


def docker_info(**changed: Any) -> Output:
    return said(json.dumps(json.loads(capture("docker/I1_docker_info.txt").splitlines()[0]) | changed))


def cdi_answer(driver: str = "580.159.04", *paths: str) -> Output:
    """What a host with these CDI specs, which are all as captured, says of them."""
    text = capture("docker/nvidia.yaml")
    specs = "\n".join(f"==> {path} <==\n{text}" for path in paths or ("/var/run/cdi/nvidia.yaml",))
    return said(f"driver {driver}\nuuid {UUID}\nminor 0\n{specs}")


def driver_packages(*more: str, **versions: str) -> Output:
    """What the package manager has installed; words of a name are joined by ``-`` for keys with ``_``."""
    held = {"nvidia-driver-cuda": "580.159.04-1", "nvidia-kernel-open-dkms": "580.159.04-1"}
    held |= {name.replace("_", "-"): version for name, version in versions.items()}
    lines = [f"installed {name} {version} hold" for name, version in held.items()]
    return said("\n".join([*lines, *more]) + "\n")


def healthy() -> dict[str, Output]:
    """What a healthy host answers to every probe of the suite."""
    packages = [line.split() for line in capture("docker/B2_versions.txt").splitlines()[:4]]
    version = re.search(
        r"=== /proc/driver/nvidia/version\n(.*?)\n\n", capture("nvidia-smi/drv_proc.txt"), re.DOTALL
    )
    assert version is not None
    return {
        "device nodes": said(
            "/dev/nvidia-caps\n/dev/nvidia-uvm\n/dev/nvidia-uvm-tools\n/dev/nvidia0\n/dev/nvidiactl\n"
        ),
        "loaded modules": said("nvidia_uvm\nnvidia\noverlay\n"),
        "module version": said("580.159.04\n"),
        "driver version": said(version.group(1)),
        "driver libraries": said("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.159.04\n"),
        "driver packages": driver_packages(),
        "driver pins": said("pin 580.*\n" + "".join(f"alone {name}\n" for name in LEFT_ALONE)),
        "driver-modules": said("6.18.44 580.159.04 yes nvidia/580.159.04\n" * 2),
        "module signer": said(""),
        "initramfs contents": said(""),
        "fabric": said("inactive\n0, [N/A], [N/A]\n"),
        "gpus": gpus(row()),
        "gpu health": health(),
        "toolkit packages": said("".join(f"installed {name} {v} hold\n" for name, v, _ in packages)),
        "toolkit sources": said(f"{REPO['uri']}/\n"),
        "config.toml": said("".join(capture("docker/B2_versions.txt").partition("#accept")[1:])),
        "ldconfig": said("/sbin/ldconfig\n"),
        "cdi": cdi_answer(),
        "nvidia-ctk": said("NVIDIA Container Toolkit CLI version 1.20.0\n"),
        "docker info": docker_info(DefaultRuntime="nvidia"),
        "docker unit": said("active\nenabled\n"),
        "nvidia runtime": said("/usr/bin/nvidia-container-runtime\n"),
        "daemon.json": said('{"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "x"}}}'),
        "docker-engine": said("running /run/docker\npackage docker.io 26.1.5 installed\n"),
        "gpus in containers": said("0a0a kept yes /triton-llm image:1\n"),
        "llm unit": unit(),
        "llm ports": ports(),
        "llm gpus": said(capture("nvidia-smi/smi_L.txt")),
        "llm ready": http(""),
        "llm server": http(capture("triton/triton_host_v2.json")),
        "llm index": index(),
        "llm inference": inference(UUID),
        "llm metrics": http(capture("triton/triton_host_metrics.txt")),
        "listening sockets": said(TAB.format(address="0100007F", port=8000)),
        f"docker run {IMAGE}": plain(),
        f"docker run {IMAGE} without GPUs": said(capture("docker/D6_env_none.txt")),
    }


FACTS = Facts(
    os="debian",
    version="12",
    codename="bookworm",
    machine="x86_64",
    architecture="amd64",
    kernel="6.18.44",
    boot_id="b",
    virtualization="none",
    secure_boot=False,
    gpus=(Gpu("0000:00:06.0", 0x2330),),
)


def target(name: str = "gpu-01", *, roles: str = "driver toolkit docker triton", **instance: Any) -> Target:
    settings = {
        "driver": DriverSettings(repo=repo()),
        "toolkit": ToolkitSettings.model_construct(version="1.20.0-1", repo=repo()),
        "docker": DockerSettings(),
        "triton": TritonSettings(
            instances={"llm": Instance(**{"image": IMAGE, "expect": ["gpu_probe"]} | instance)}
        ),
    }
    chosen = {role: settings[role.name] for role in choose(all_roles(), roles.split())}
    return Target(name, Login(name, address="192.0.2.1"), chosen)


def verdicts(
    changed: Mapping[str, Output] | None = None,
    wanted: Target | None = None,
    facts: Facts = FACTS,
    **options: Any,
) -> HostResult:
    """Judge one host that answers as a healthy one does, but for what is changed."""
    answers = healthy() | dict(changed or {})

    def ask(probes: Mapping[str, Sequence[Probe]], more: frozenset[str]) -> dict[str, Answered]:
        return {
            name: Answered(Evidence(facts, {probe.name: answers[probe.name] for probe in asked}))
            for name, asked in probes.items()
        }

    return verify([wanted or target()], ask, **options).hosts[0]


def found(result: HostResult, verdict: str) -> dict[str, str]:
    return {check.name: check.message for check in result.checks if check.verdict == verdict}


def test_healthy_host_passes_every_check() -> None:
    result = verdicts()
    assert [check for check in result.checks if check.verdict != "pass"] == []
    assert {check.role for check in result.checks} == {"driver", "toolkit", "docker", "triton"}
    assert len(result.checks) >= 30
    assert result.status == "ok"


Broken = tuple[dict[str, Output], dict[str, str]]
"""What the host answers instead, and the failing checks, each with a pattern of its message."""

NO_LIBRARY = capture("docker/H3_fault_no_lib.txt").splitlines()
SEED = capture("docker/A2_seed_repro.txt")

BROKEN: dict[str, Callable[[], Broken]] = {
    "dockerd down": lambda: (
        {
            "docker info": Output(
                1, b'{"ID":""}', b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
            )
        },
        {"engine answers": "dockerd is not running"},
    ),
    "runtime not loaded": lambda: (
        {"docker info": docker_info(DefaultRuntime="runc")},
        {"default runtime is loaded": "with runc by default, not with nvidia; daemon.json says nvidia"},
    ),
    "runtime not registered": lambda: (
        {"docker info": docker_info(DefaultRuntime="nvidia", Runtimes={"runc": {}})},
        {"nvidia runtime is registered": "only runc"},
    ),
    "another engine": lambda: (
        {"docker-engine": said("running /run/docker\npackage docker-ce 5:27.3.1 installed\n")},
        {"engine is the one of the settings": "docker-ce 5:27.3.1 is installed here, and the settings want"},
    ),
    "docker as a snap": lambda: (
        {"docker-engine": said("snap /snap/docker/current\n")},
        {"engine is the one of the settings": "Docker is installed as a snap"},
    ),
    "not restarted since": lambda: (
        {"daemon.json": said('{"default-runtime": "nvidia", "runtimes": {}, "log-driver": "journald"}')},
        {"loaded configuration is the one on disk": "'json-file', and daemon.json says 'journald'"},
    ),
    "a key is gone": lambda: (
        {"daemon.json": said('{"default-runtime": "nvidia"}')},
        {"loaded configuration is the one on disk": "daemon.json lacks runtimes"},
    ),
    "a container lost its gpus": lambda: (
        {"gpus in containers": said("0a0a lost no /legacy image:1\n0b0b kept yes /triton-llm image:1\n")},
        {"running containers keep their gpus": r"no longer sees its GPUs: container legacy \(image:1\)$"},
    ),
    "runtime not installed": lambda: (
        {
            "nvidia runtime": said("", 127),
            f"docker run {IMAGE}": said(capture("docker/H6_fault_no_runtime.txt"), 127),
        },
        {
            "nvidia runtime is installed": "not installed",
            "plain container has nvml": "Toolkit is not installed",
            "plain container imports tensorrt llm": "Toolkit is not installed",
            "plain container sees all gpus": "Toolkit is not installed",
            "container with none sees no gpu": "Toolkit is not installed",
        },
    ),
    "the error that started it all": lambda: (
        {f"docker run {IMAGE}": plain(nvml=SEED, smi=missing("nvidia-smi").err, llm=SEED)},
        {
            "plain container has nvml": "without the driver's libraries",
            "plain container imports tensorrt llm": "without the driver's libraries",
            "plain container sees all gpus": "without a GPU",
        },
    ),
    "no library on the host": lambda: (
        {f"docker run {IMAGE}": said(NO_LIBRARY[3], 125), "gpus": said("\n".join(NO_LIBRARY[:2]), 12)},
        {
            "every gpu on the bus answers": r"no libnvidia-ml\.so\.1",
            "persistence mode is on": r"no libnvidia-ml\.so\.1",
            "plain container has nvml": r"host has no libnvidia-ml\.so\.1",
            "plain container imports tensorrt llm": r"host has no libnvidia-ml\.so\.1",
            "plain container sees all gpus": r"host has no libnvidia-ml\.so\.1",
            "container with none sees no gpu": r"host has no libnvidia-ml\.so\.1",
            "canary answers from the assigned gpus": "no GPU on the host",
            "container sees the assigned gpus": "no GPU on the host",
            "metrics show the assigned gpus": "no GPU on the host",
        },
    ),
    "container killed while it imports": lambda: (
        {f"docker run {IMAGE}": said("".join(plain().out.partition("== tensorrt_llm")[:1]), 137)},
        {"plain container imports tensorrt llm": "before its step tensorrt_llm: it was killed"},
    ),
    "image sees a GPU with none": lambda: (
        {f"docker run {IMAGE} without GPUs": said(capture("nvidia-smi/smi_L.txt"))},
        {"container with none sees no gpu": "sees GPUs"},
    ),
    "unit failed": lambda: (
        {"llm unit": unit(ActiveState="failed", Result="exit-code")},
        {"unit is active": r"triton@llm\.service is failed \(exit-code\)"},
    ),
    "unit restarts": lambda: (
        {"llm unit": unit(NRestarts="4", Uptime="70.5 1.0")},
        {"unit does not restart": r"restarted 4×, the last time 12 s ago"},
    ),
    "unit not enabled": lambda: ({"llm unit": unit(Enabled="disabled")}, {"unit starts at boot": "disabled"}),
    "server not ready": lambda: (
        {"llm ready": http("", "400 Bad Request")},
        {"server is ready": "status 400"},
    ),
    "nobody listens": lambda: ({"llm ready": REFUSED}, {"server is ready": "connection refused"}),
    "another version": lambda: (
        {"llm server": http('{"name":"triton","version":"2.47.0"}')},
        {"server is of the version of its tag": r"version 2\.47\.0, and .*holds 2\.48\.0"},
    ),
    "empty repository": lambda: (
        {"llm index": http("[]")},
        {"models are ready": f"gpu_probe is not ready: not in the repository; model {CANARY_MODEL}"},
    ),
    "canary dies": lambda: (
        {"llm inference": said("", 124)},
        {"canary answers from the assigned gpus": "no answer within 15 s"},
    ),
    "canary on the CPU": lambda: (
        {"llm inference": inference()},
        {"canary answers from the assigned gpus": f"sees 0 GPUs and not {UUID}"},
    ),
    "canary on another GPU": lambda: (
        {"llm inference": inference(UUID, OTHER)},
        {"canary answers from the assigned gpus": f"sees {OTHER}, which is not assigned"},
    ),
    "container lost its devices": lambda: (
        {"llm gpus": said("Failed to initialize NVML: Unknown Error\n", 255)},
        {"container sees the assigned gpus": "lost its devices"},
    ),
    "metrics stay at 0": lambda: (
        {"llm metrics": http(capture("triton/triton_host_metrics_at_ready.txt"))},
        {"metrics show the assigned gpus": f"no memory for {UUID}"},
    ),
    "published to the world": lambda: (
        {"llm ports": ports(HostIp="0.0.0.0")},
        {"ports are on the configured address only": r"0\.0\.0\.0:8000, .* and not on 127\.0\.0\.1"},
    ),
    "somebody else listens": lambda: (
        {"listening sockets": said(TAB.format(address="0" * 32, port=8001))},
        {"ports are on the configured address only": ":::8001"},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_host_fails_the_checks_that_it_should(name: str) -> None:
    changed, expected = BROKEN[name]()
    result = verdicts(changed)
    failures = found(result, "fail")
    assert failures.keys() == expected.keys()
    for check, pattern in expected.items():
        assert re.search(pattern, failures[check]), failures[check]
    assert result.status == "failed"
    assert all("\n" not in message for message in failures.values())
    hints = {check.name for check in result.checks if check.verdict == "fail" and check.hint}
    assert hints == failures.keys()


def test_a_container_that_will_lose_its_gpus_is_a_concern() -> None:
    result = verdicts({"gpus in containers": said("0a0a lost yes /legacy image:1\n")})
    assert found(result, "fail") == {}
    said_of_it = found(result, "warn")["running containers keep their gpus"]
    assert said_of_it == "loses its GPUs when systemd reloads its units: container legacy (image:1)"


def test_server_without_gpu_metrics_is_a_warning() -> None:
    lines = capture("triton/triton_host_metrics.txt").splitlines()
    text = "\n".join(line for line in lines if "nv_gpu" not in line)
    assert "no GPU metrics" in found(verdicts({"llm metrics": http(text)}), "warn").popitem()[1]


def test_image_with_known_rce_is_a_warning_where_others_reach_it() -> None:
    changed = {"llm ports": ports(HostIp="192.0.2.1"), "listening sockets": said("")}
    result = verdicts(changed, target(address="192.0.2.1"))
    assert found(result, "fail") == {}
    assert "CVE-2025-23319" in found(result, "warn")["image is safe where it is reachable"]


def test_failed_unit_does_not_fail_what_depends_on_it() -> None:
    skipped = found(verdicts({"llm unit": unit(ActiveState="activating")}), "skip")
    assert skipped["server is ready"] == "triton@llm.service is activating"
    assert skipped["ports are on the configured address only"] == "triton@llm.service is activating"


@pytest.mark.parametrize(
    ("instance", "changed", "skipped"),
    [
        ({"image": "registry.example/own:1"}, {}, {"server is of the version of its tag"}),
        ({"canary": False, "expect": []}, {}, {"models are ready", "canary answers from the assigned gpus"}),
        ({"args": ["--allow-gpu-metrics=false"]}, {}, {"metrics show the assigned gpus"}),
        (
            {"gpus": "none"},
            {"llm gpus": said("", 127), "llm inference": inference()},
            {
                "metrics show the assigned gpus",
                "plain container has nvml",
                "plain container sees all gpus",
                "container with none sees no gpu",
                "plain container imports tensorrt llm",
            },
        ),
        (
            {"gpus": ["MIG-0"]},
            {},
            {
                "canary answers from the assigned gpus",
                "container sees the assigned gpus",
                "metrics show the assigned gpus",
            },
        ),
        ({"gpus": [0]}, {}, set()),
        ({"gpus": [UUID]}, {}, set()),
        ({"address": "0.0.0.0"}, {}, {"ports are on the configured address only"}),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_skipped_with_a_reason(
    instance: dict[str, Any], changed: dict[str, Output], skipped: set[str]
) -> None:
    wanted = target(**instance)
    image = instance.get("image", IMAGE)
    changed = changed | {f"docker run {image}": plain(), f"docker run {image} without GPUs": said("")}
    result = verdicts(changed, wanted)
    assert found(result, "fail") == {}
    assert found(result, "skip").keys() - {"plain container imports tensorrt llm"} == skipped - {
        "plain container imports tensorrt llm"
    }
    assert all(found(result, "skip").values())


def test_selection_that_is_not_there_fails() -> None:
    failures = found(verdicts(wanted=target(gpus=[7])), "fail")
    assert failures["canary answers from the assigned gpus"] == "GPU 7 of the settings is not on this host"


def test_default_runtime_runc_expects_nothing_of_plain_containers() -> None:
    base = target()
    settings = {
        role: DockerSettings(default_runtime="runc") if role.name == "docker" else value
        for role, value in base.settings.items()
    }
    result = verdicts(
        {"docker info": docker_info(DefaultRuntime="runc")}, Target(base.name, base.login, settings)
    )
    assert "default runtime is runc" in found(result, "skip")["plain container has nvml"]
    assert found(result, "fail") == {}


# ── many hosts ───────────────────────────────────────────────────────────────────────────────────────────


def fleet(expression: str = "", junit: Path | None = None) -> VerifyResult:
    """Two healthy hosts, one without roles but docker, one broken, one unreachable, one that hangs."""
    targets = [
        target("gpu-01"),
        target("gpu-02"),
        target("cpu-01", roles="docker"),
        target("gpu-03"),
        target("gpu-04"),
        target("gpu-05"),
    ]

    def ask(probes: Mapping[str, Sequence[Probe]], more: frozenset[str]) -> dict[str, Answered]:
        answered = {name: Answered(Evidence(FACTS, healthy())) for name in probes}
        if "gpu-03" in answered:
            answered["gpu-03"] = Answered(Evidence(FACTS, healthy() | {"llm inference": inference()}))
        if "gpu-04" in answered:
            answered["gpu-04"] = Answered(
                error=UnreachableError("gpu-04", "no answer within 10 s", hint="is it on?")
            )
        if "gpu-05" in answered:
            answered["gpu-05"] = Answered(error=ProbeError("gpu-05", "probe gpus did not end within 900 s"))
        return answered

    return verify(targets, ask, expression=expression, junit=junit)


def test_one_host_does_not_stop_another() -> None:
    result = fleet()
    assert {host.host: host.status for host in result.hosts} == {
        "gpu-01": "ok",
        "gpu-02": "ok",
        "cpu-01": "ok",
        "gpu-03": "failed",
        "gpu-04": "unreachable",
        "gpu-05": "failed",
    }
    assert result.exit_code == 1
    assert {check.role for check in result.hosts[2].checks} == {"docker"}


@pytest.mark.parametrize(
    ("expression", "hosts", "code"),
    [
        ("gpu-01 or gpu-02", {"gpu-01", "gpu-02"}, 0),
        ("gpu-03", {"gpu-03"}, 3),
        ("gpu-03 and docker", {"gpu-03"}, 0),
        ("toolkit", {"gpu-01", "gpu-02", "gpu-03", "gpu-04", "gpu-05"}, 1),
        ("llm and gpu-01", {"gpu-01"}, 0),
    ],
)
def test_expression_selects_hosts_and_checks(expression: str, hosts: set[str], code: int) -> None:
    result = fleet(expression)
    assert {host.host for host in result.hosts} == hosts
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("expression", "message"),
    [("nothing-like-it", "no check is selected by -k 'nothing-like-it'"), ("and and", "-k 'and and' is not")],
)
def test_expression_that_selects_nothing_is_refused(expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fleet(expression)


def test_document() -> None:
    document = fleet().document()
    assert document["schema"] == 1
    assert document["summary"]["ok"] == 3
    assert document["summary"]["failed"] == 2
    assert document["summary"]["unreachable"] == 1
    assert document["summary"]["checks"]["fail"] == 1
    assert document["hosts"]["gpu-04"]["error"] == {"message": "no answer within 10 s", "hint": "is it on?"}
    assert document["hosts"]["gpu-04"]["checks"] == []
    failed = next(c for c in document["hosts"]["gpu-03"]["checks"] if c["verdict"] == "fail")
    assert failed["name"] == "canary answers from the assigned gpus"
    assert (failed["role"], failed["instance"]) == ("triton", "llm")
    json.dumps(document)


def test_text_folds_equal_hosts_and_has_a_sentence_for_each_failure() -> None:
    text = fleet().text()
    assert re.search(r"^gpu-\[01-02\]: \d+ passed$", text, re.MULTILINE)
    assert re.search(
        rf"^FAIL triton llm: canary .*: gpu-03\n  the server's process sees 0 GPUs and not {UUID}$",
        text,
        re.MULTILINE,
    )
    assert "UNREACHABLE gpu-04\n  no answer within 10 s\n  hint: is it on?" in text
    assert re.search(r"^6 hosts in .*: 3 ok, 2 failed, 1 unreachable; 0 execs$", text, re.MULTILINE)
    assert "Traceback" not in text


def test_junit(tmp_path: Path) -> None:
    file = tmp_path / "verify.xml"
    fleet(junit=file)
    suite = ElementTree.parse(file).getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"
    unreachable = [case for case in suite.iter("testcase") if "gpu-04" in str(case.get("name"))]
    errors = {str(error.text) for case in unreachable for error in case.iter("error")}
    assert errors == {"no answer within 10 s\nhint: is it on?"}


def test_nothing_reaches_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    fleet()
    assert capfd.readouterr().out == ""


# ── users' own tests ─────────────────────────────────────────────────────────────────────────────────────


def test_own_tests_run_with_the_same_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        """
from provision.probe import Probe
from provision.verify import warn

def probes(settings):
    return [Probe("uname", "uname -s")]

def test_kernel(evidence, target):
    assert evidence["uname"].out == "Linux", f"{target.name} is no Linux"

def test_facts(facts):
    assert facts.os == "debian"

def test_bare(facts):
    assert facts.family == "rhel"

def test_boom():
    {}["missing"]

def test_warning():
    warn("just so")
"""
    )

    def ask(probes: Mapping[str, Sequence[Probe]], more: frozenset[str]) -> dict[str, Answered]:
        assert more == frozenset()
        assert [probe.script for probe in probes["gpu-01"]] == ["uname -s"]
        return {"gpu-01": Answered(Evidence(FACTS, {"uname": said("Hurd")}))}

    host = verify([target()], ask, suites=[tmp_path]).hosts[0]
    assert {check.name: check.verdict for check in host.checks} == {
        "kernel": "fail",
        "facts": "pass",
        "bare": "fail",
        "boom": "fail",
        "warning": "warn",
    }
    assert found(host, "fail")["kernel"] == "gpu-01 is no Linux"
    assert re.match(r"assert 'debian' == 'rhel'", found(host, "fail")["bare"])
    assert re.fullmatch(r"KeyError: 'missing' \(test_own\.py:\d+\)", found(host, "fail")["boom"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_it", r"test_own_\d+\.py: .*No module named 'nothing_like_it'"),
        ("ROLE = 'rle'\ndef test_x(): pass", "no role 'rle'"),
        (
            "from provision.probe import Probe\nROLE = 'docker'\n"
            "def probes(s): return [Probe('a', '1')]\ndef test_x(): pass",
            "another module has a different probe 'a'",
        ),
    ],
)
def test_own_test_that_cannot_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    # pytest keeps modules by name in sys.modules, so every case has its own.
    name = f"own_{abs(hash(text))}"
    (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / f"test_a_{name}.py").write_text(
        "from provision.probe import Probe\ndef probes(s): return [Probe('a', '2')]\ndef test_y(): pass"
    )

    def ask(probes: Mapping[str, Sequence[Probe]], more: frozenset[str]) -> dict[str, Answered]:
        return {"gpu-01": Answered(Evidence(FACTS, {}))}

    with pytest.raises(UsageError, match=message):
        verify([target()], ask, suites=[tmp_path])


@pytest.mark.parametrize("place", [".", "none/x.xml"])
def test_a_junit_report_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        verify([target()], lambda *_: {}, junit=tmp_path / place)
