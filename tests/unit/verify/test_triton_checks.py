"""The checks of Triton on a played host: a healthy one, and one with a single thing wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from provision.probe import Output
from provision.roles.triton.launch import CANARY_MODEL
from provision.roles.triton.role import GATE, environment_file
from provision.roles.triton.unit import command_of
from provision.verify.outcome import HostResult
from provision.verify.suite import Choice
from tests.unit.verify.healthy_driver import SMI, STATE, UUID, capture, files_of, gpus, row, state
from tests.unit.verify.healthy_triton import (
    ASKED,
    COMMAND,
    CONFIG,
    IMAGE,
    IMAGE_ID,
    INDEX,
    INFERENCE,
    INFO,
    INSIDE,
    INSPECT,
    METRICS,
    MODELS_FOLDER,
    MOUNTED,
    NONE,
    OTHERS,
    OWED_TO_SERVERS,
    PLAIN,
    READY,
    REPOSITORY,
    SERVER,
    SHOW,
    SIGHT,
    SOCKETS,
    TOP,
    UNIT,
    container,
    docker_info,
    http,
    index,
    inference,
    listens,
    plain,
    repository,
    serving,
    settings,
    text_of,
    unit,
)
from tests.unit.verify.played_host import Answer, Played, There, look, said, verdicts

OTHER = "GPU-99999999-1111-2222-3333-444444444444"
REFUSED = Output(
    1, b"", b"http: connect: Connection refused\nhttp: line 1: /dev/tcp/127.0.0.1/8000: Connection refused"
)
NO_LIBRARY = capture("docker/H3_fault_no_lib.txt").splitlines()
SEED = capture("docker/A2_seed_repro.txt")
NO_PROGRAM = "timeout: failed to run command 'nvidia-smi': No such file or directory"
HANGS = said("", 124)
BLIND = "0a0a lost no /triton-llm image:1\n"
DROPIN = "/etc/systemd/system/triton@llm.service.d/x.conf"


def checked(played: Played, docker: Mapping[str, Any] = {}, **instance: Any) -> HostResult:
    """What becomes of Docker and Triton; what the driver's own checks would say counts as told there."""
    return look(played, settings(docker, **instance))[0]


def broken(answers: Mapping[str, Answer] = {}, **more: Any) -> Played:
    return serving(settings()).with_(answers, **more)


def messages(result: HostResult, verdict: str = "fail") -> dict[str, str]:
    return {check.name: check.message for check in verdicts(result, verdict).values()}


def test_healthy_host_passes_every_check_in_few_execs() -> None:
    result, connection = look(serving(settings()), settings())
    assert [check for check in result.checks if check.verdict != "pass"] == []
    assert len(result.checks) == 40
    assert connection.execs <= 8


def test_a_server_of_the_previous_tag_whose_next_one_could_not_be_pulled_is_no_success() -> None:
    no_image = broken({IMAGE_ID: said(code=1, err="Error: No such image: x\n")})
    told = messages(checked(no_image, image=IMAGE.replace("24.07", "24.10")))
    assert any("the image is not on the host" in message for message in told.values()), told
    assert any("is not what the settings ask for" in message for message in told.values()), told


def test_settings_that_are_not_provisioned_yet_are_the_only_cause() -> None:
    elsewhere = {INSIDE: said(f"GPU 0: X (UUID: {OTHER})\n"), INFERENCE: inference(OTHER)}
    for pending in ({"image": IMAGE.replace("24.07", "24.10")}, {"gpus": [UUID]}):
        assert list(messages(checked(broken(elsewhere), **pending))) == [THE_UNIT]


def test_a_python_model_with_its_process_is_no_finding() -> None:
    stub = "/opt/tritonserver/backends/python/triton_python_backend_stub /models/gpu_probe/1/model.py x"
    top = {REPOSITORY: repository('backend: "python"'), TOP: said(f"COMMAND\ntritonserver\n{stub}\n")}
    assert not messages(checked(broken(top)))


def test_containers_are_started_once_for_each_image() -> None:
    _, connection = look(serving(settings()), settings())
    assert sum("docker run" in line for line in connection.asked) == 2


def test_a_quick_look_starts_no_container() -> None:
    result, connection = look(serving(settings()), settings(), Choice(quick=True))
    assert result.status == "ok"
    assert not any("docker run" in line for line in connection.asked)


def stopped(**changed: str) -> dict[str, Answer]:
    return {SHOW: unit(ActiveState="failed", Result="exit-code", **changed), INSPECT: said("[]", 1)}


HEALTHY = serving(settings())
CMDLINE = "".join(f"{word}\0" for word in command_of(text_of(HEALTHY.files[UNIT])))
ACTIVE, RUNS, PORTS = (
    "unit is active",
    "what runs is what the settings say",
    "ports are on the configured address only",
)
THE_UNIT, MODELS, CANARY = (
    "unit is the one of the settings",
    "models are ready",
    "canary answers from the assigned gpus",
)
CANARIES, LOADABLE = "canaries answer as expected", "models can be loaded"
SEES, SHOWS, PLAIN_SEES = (
    "container sees the assigned gpus",
    "metrics show the assigned gpus",
    "plain container sees all gpus",
)
FITS = "image fits the driver"
NVML, IMPORTS, WITH_NONE = (
    "plain container has nvml",
    "plain container imports tensorrt llm",
    "container with none sees no gpu",
)

NO_CONFIG = 'config.pbtxt:1: Expected ":"'
FAULTS: dict[str, tuple[Played, str, str]] = {
    "a model that cannot be loaded": (
        HEALTHY.with_({**stopped(), REPOSITORY: repository('name "x"')}),
        ACTIVE,
        rf"^triton@llm\.service cannot start: {MODELS_FOLDER}/gpu_probe/{NO_CONFIG}",
    ),
    "another answer to a canary": (
        broken({ASKED: http('{"outputs": [{"name": "OUT", "datatype": "INT32", "data": [3]}]}')}),
        CANARIES,
        r"^canary gpu_probe: output OUT\[0\] is 3, expected 2$",
    ),
    "no answer to a canary": (
        broken({ASKED: said(code=124)}),
        CANARIES,
        "^canary gpu_probe: no answer within 10 s$",
    ),
    # What the instance stands on.
    "module not loaded": (broken({STATE: state("")}), SEES, "kernel module nvidia is not loaded"),
    "no GPU on the bus": (broken({STATE: state(pci="")}), SEES, "no NVIDIA GPU is on the PCI bus"),
    "nvidia-smi hangs": (broken({SMI: HANGS}), SEES, "nvidia-smi shows no GPU: it did not answer in time"),
    "no library on the host": (
        broken({SMI: said("\n".join(NO_LIBRARY[:2]), 12), PLAIN: said(NO_LIBRARY[3], 125)}),
        SEES,
        r"the host has no libnvidia-ml\.so\.1",
    ),
    "no image": (
        broken({IMAGE_ID: said(code=1, err="Error: No such image: x\n")}),
        "image is on the host",
        "the image is not on the host",
    ),
    # Files and the unit.
    "gate is gone": (broken(files={GATE: None}), "files are as provisioned", f"{GATE} is not there"),
    "gate is gone and the unit down": (
        broken(stopped(), files={GATE: None}),
        "files are as provisioned",
        f"{GATE} is not there",
    ),
    "canary changed": (
        broken(files={f"/usr/local/share/provision/triton/{CANARY_MODEL}/1/model.py": There("x")}),
        "files are as provisioned",
        r"model\.py is not what the settings ask for",
    ),
    "another instance": (
        broken({OTHERS: said(f"{UNIT}\n/etc/systemd/system/triton@old.service\n")}),
        "no other instance is there",
        r"triton@old\.service is of an earlier run",
    ),
    "unit changed by hand": (
        broken(files={UNIT: There("[Unit]\n")}),
        THE_UNIT,
        "is not what the settings ask for",
    ),
    "unit changed by hand and stopped": (
        broken(stopped(), files={UNIT: There("[Unit]\n")}),
        THE_UNIT,
        r"is not what the settings ask for; triton@llm\.service is inactive$",
    ),
    "unit gone": (
        broken(
            {SHOW: unit(LoadState="not-found", ActiveState="inactive", UnitFileState="")}, files={UNIT: None}
        ),
        THE_UNIT,
        f"{UNIT} is not there",
    ),
    "unit masked": (
        broken(
            {SHOW: unit(LoadState="masked", ActiveState="inactive", UnitFileState="masked")},
            files={UNIT: None},
        ),
        THE_UNIT,
        r"triton@llm\.service is masked",
    ),
    "environment readable for all": (
        broken(files={environment_file("llm"): There(text_of(HEALTHY.files[environment_file("llm")]))}),
        THE_UNIT,
        r"/etc/triton/llm\.env is 0644 root:root, wanted 0600 root:root",
    ),
    "unit not loaded": (
        broken({SHOW: unit(NeedDaemonReload="yes")}),
        THE_UNIT,
        "systemd has not loaded the files",
    ),
    "another unit file": (
        broken({SHOW: unit(FragmentPath="/run/systemd/system/triton@llm.service")}),
        THE_UNIT,
        "from /run/systemd/system/triton@llm.service",
    ),
    "models folder gone": (
        broken(files={"/srv/triton/llm/models": None}),
        "model repository is there",
        "/srv/triton/llm/models is not a folder",
    ),
    "unit failed": (broken(stopped()), ACTIVE, r"triton@llm\.service is failed \(exit-code\)"),
    "unit restarts": (
        broken({SHOW: unit(NRestarts="4")}, files={"/proc/uptime": There("70.5 1.0\n")}),
        "unit does not restart",
        r"restarted 4×, the last time 12 s ago",
    ),
    "unit not enabled": (
        broken({SHOW: unit(UnitFileState="disabled")}),
        "unit starts at boot",
        "is disabled",
    ),
    # What runs.
    "not restarted since": (
        broken({COMMAND: said(CMDLINE.replace("--shm-size=1g", "--shm-size=2g"))}),
        RUNS,
        "runs with --shm-size=2g and not with --shm-size=1g",
    ),
    "process of a python model killed": (
        broken({REPOSITORY: repository('backend: "python"'), TOP: said("COMMAND\ntritonserver --x\n")}),
        "python models have their processes",
        "the process of gpu_probe is gone, and Triton calls it ready",
    ),
    "image pulled anew": (broken({INSPECT: container("sha256:old")}), RUNS, "runs another image than"),
    "no container": (
        broken({INSPECT: said("[]", 1, "Error: No such object")}),
        RUNS,
        "docker does not know triton-llm",
    ),
    "published to the world": (
        broken({INSPECT: container(more={"9/tcp": [{"HostIp": "", "HostPort": "8000"}]})}),
        PORTS,
        r"reachable on 0\.0\.0\.0:8000 and not on 127\.0\.0\.1 alone",
    ),
    "published elsewhere": (
        broken({INSPECT: container(address="127.0.0.2")}),
        PORTS,
        r"reachable on 127\.0\.0\.2:8000, .* and not on 127\.0\.0\.1 alone",
    ),
    "not published": (
        broken({INSPECT: container(more={"8000/tcp": None})}),
        PORTS,
        r"does not publish 127\.0\.0\.1:8000$",
    ),
    "somebody else listens": (
        broken({SOCKETS: said("Netid State\n" + listens("[::]:8001", "127.0.0.1:8000"))}),
        PORTS,
        "reachable on :::8001",
    ),
    # The server.
    "nobody listens": (broken({SERVER: REFUSED}), MODELS, "the server says: connection refused"),
    "hangs": (broken({SERVER: HANGS}), MODELS, "the server says: no answer within 15 s"),
    "another server": (broken({SERVER: http("<html>")}), MODELS, "does not speak as Triton does: <html>"),
    "a model that nobody expects": (
        broken({READY: http("", "400 Bad Request")}),
        "server is ready",
        "is not ready",
    ),
    "expected model fails": (
        broken(
            {
                READY: http("", "400 Bad Request"),
                INDEX: http('[{"name": "gpu_probe", "reason": "no memory"}]'),
            }
        ),
        MODELS,
        "model gpu_probe is not ready: no memory",
    ),
    "empty repository": (
        broken({INDEX: http("[]")}),
        MODELS,
        f"gpu_probe is not ready: not in the repository; model {CANARY_MODEL}",
    ),
    "another version": (
        broken({SERVER: http('{"name":"triton","version":"2.47.0"}')}),
        "server is of the version of its tag",
        r"version 2\.47\.0, and .*holds 2\.48\.0",
    ),
    "canary dies": (broken({INFERENCE: HANGS}), CANARY, "no answer within 15 s"),
    "canary answers something else": (
        broken({INFERENCE: http('{"outputs": [{"name": "TEXT", "data": ["no"]}]}')}),
        CANARY,
        r"and answers \['no'\]",
    ),
    "canary on the CPU": (broken({INFERENCE: inference()}), CANARY, f"sees 0 GPUs and not {UUID}"),
    "canary on another GPU": (
        broken({INFERENCE: inference(UUID, OTHER)}),
        CANARY,
        f"sees {OTHER}, which is not assigned",
    ),
    "container on another GPU": (
        broken({INSIDE: said(f"GPU 0: X (UUID: {OTHER})\n"), INFERENCE: inference(OTHER)}),
        SEES,
        f"triton-llm sees 1 GPUs and not {UUID}",
    ),
    "container that was given none": (
        broken({INSIDE: said(capture("docker/D6_env_none.txt")), INFERENCE: inference()}),
        SEES,
        f"triton-llm sees 0 GPUs and not {UUID}",
    ),
    "container without nvidia-smi": (broken({INSIDE: said(code=127)}), SEES, "was started without a GPU"),
    "container lost its devices": (
        broken(
            {
                SIGHT: said(BLIND),
                INSIDE: said("Failed to initialize NVML: Unknown Error\n", 255),
                INFERENCE: inference(),
            }
        ),
        "running containers keep their gpus",
        r"no longer sees its GPUs: container triton-llm \(image:1\)",
    ),
    "metrics stay at 0": (
        broken({METRICS: http(capture("triton/triton_host_metrics_at_ready.txt"))}),
        SHOWS,
        f"no memory for {UUID}",
    ),
    # Containers of its image.
    "driver too old for the image": (
        broken({SMI: gpus(row() | {"driver_version": "520.61.05"})}),
        FITS,
        "^driver 520.61.05 does not drive H100: the first branch that does is 525$",
    ),
    "toolkit gone": (
        broken(
            {
                "^command -v nvidia-container-runtime$": said(code=127),
                PLAIN: said(capture("docker/H6_fault_no_runtime.txt"), 127),
            }
        ),
        "nvidia runtime is there",
        "nvidia-container-runtime is not installed",
    ),
    "ldconfig of another distribution": (
        broken(
            {
                CONFIG: said('[nvidia-container-cli]\nldconfig = "@/sbin/ldconfig.real"\n'),
                PLAIN: said("docker: Error response from daemon: OCI runtime create failed", 125),
            }
        ),
        NVML,
        r"config\.toml names /sbin/ldconfig\.real, which the host does not have",
    ),
    "a hook of the toolkit is gone": (
        broken(
            {
                r"\ndamaged_files nvidia[^\n]*$": said("missing /usr/bin/nvidia-cdi-hook\n"),
                PLAIN: said("docker: Error response from daemon: OCI runtime create failed", 125),
            }
        ),
        NVML,
        "^/usr/bin/nvidia-cdi-hook is missing$",
    ),
    "container does not start": (
        broken({PLAIN: said(capture("docker/A4_runtime_nvidia_missing.txt"), 125)}),
        NVML,
        "does not start a container: dockerd does not know the runtime nvidia",
    ),
    "the error that started it all": (
        broken({PLAIN: plain(nvml=SEED, smi=NO_PROGRAM, llm=SEED)}),
        NVML,
        "without the driver's libraries",
    ),
    "import fails": (
        broken({PLAIN: plain(llm="ImportError: x")}),
        IMPORTS,
        "import tensorrt_llm fails .*ImportError: x",
    ),
    "killed while it imports": (
        broken({PLAIN: said("".join(plain().out.partition("== tensorrt_llm")[:1]), 137)}),
        IMPORTS,
        "before its step tensorrt_llm: it was killed",
    ),
    "plain container without GPUs": (broken({PLAIN: plain(smi=NO_PROGRAM)}), PLAIN_SEES, "without a GPU"),
    "image sees a GPU with none": (
        broken({NONE: said(capture("nvidia-smi/smi_L.txt"))}),
        WITH_NONE,
        "sees GPUs",
    ),
    "no container with none": (
        broken({NONE: said("docker: x", 125)}),
        WITH_NONE,
        "does not start: exit 125: docker: x",
    ),
}


@pytest.mark.campaign("checks", sample=10)
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_told_once_with_its_cause(name: str) -> None:
    played, check, words = FAULTS[name]
    result = checked(played)
    failures = messages(result)
    assert list(failures) == [check]
    assert re.search(words, failures[check]), failures[check]
    assert all(found.hint for found in verdicts(result, "fail").values())
    assert all("\n" not in message for message in failures.values())
    assert messages(result, "warn") == {}
    assert all(messages(result, "skip").values())


@pytest.mark.parametrize("expression", ["canary", "container and sees", "metrics", "none", "nvml"])
def test_what_a_check_stands_on_is_told_by_it_where_it_is_alone(expression: str) -> None:
    result = look(broken({SMI: HANGS, INFERENCE: inference()}), settings(), Choice(expression=expression))[0]
    assert next(iter(messages(result).values())) == "nvidia-smi shows no GPU: it did not answer in time"


@pytest.mark.parametrize(
    ("cuda", "driver", "says"),
    [
        ("13.5.0", "545.23.08", "driver 545.23.08 is too old for CUDA 13.5 of"),
        ("13.5.0", "580.159.04", ""),
        ("14.0.1", "580.159.04", ""),  # of which nothing is known here
    ],
)
def test_an_image_of_a_later_release_is_judged_by_its_own_configuration(
    cuda: str, driver: str, says: str
) -> None:
    image = "nvcr.io/nvidia/tritonserver:27.01-py3"
    played = serving(settings(image=image)).with_(
        {
            SMI: gpus(row() | {"driver_version": driver}),
            r"docker image inspect --format '\{\{json \.Config\}\}'": said(
                json.dumps({"Env": [f"CUDA_VERSION={cuda}"]})
            ),
        }
    )
    found = messages(look(played, settings(image=image), Choice(expression="fits"))[0])
    assert found.keys() == ({FITS} if says else set())
    assert says in found.get(FITS, "")


WARNINGS: dict[str, tuple[Played, dict[str, Any], str, str]] = {
    "no GPU metrics": (
        broken({METRICS: http("nv_cpu_utilization 0\n")}),
        {},
        SHOWS,
        "reports no GPU metrics",
    ),
    "known vulnerabilities where others reach it": (
        serving(settings(address="192.0.2.1")).with_(
            {INSPECT: container(address="192.0.2.1"), SOCKETS: said("Netid State\n")}
        ),
        {"address": "192.0.2.1"},
        "image is safe where it is reachable",
        r"release 24\.07 has 57 known vulnerabilities, fixed in 26\.06; the worst is CVE-2026-47627",
    ),
    "a drop-in changes the command": (
        broken(
            {
                SHOW: unit(DropInPaths=DROPIN),
                COMMAND: said(CMDLINE.replace("--shm-size=1g", "--shm-size=2g")),
                f"^grep .* {DROPIN}$": said(),
            }
        ),
        {},
        RUNS,
        f"{DROPIN} starts triton@llm.service with --shm-size=2g",
    ),
}


def test_by_default_every_model_of_the_list_is_expected() -> None:
    assert messages(checked(serving(settings(expect=None)), expect=None)) == {}
    failed = serving(settings(expect=None)).with_({INDEX: index(("other", "bad weights"))})
    assert messages(checked(failed, expect=None)) == {MODELS: "model other is not ready: bad weights"}


def hint_of(result: HostResult) -> str:
    """What to do about the one check that fails."""
    (check,) = verdicts(result, "fail").values()
    return check.hint or ""


@pytest.mark.parametrize("expected", [None, ["gpu_probe"]])
def test_a_folder_that_came_back_under_a_server_is_the_cause_of_what_it_lacks(
    expected: list[str] | None,
) -> None:
    """The container has the removed one."""
    only = http(json.dumps([{"name": CANARY_MODEL, "version": "1", "state": "READY"}]))
    unknown = http('{"error": "unknown model"}', "400 Bad Request")
    wanted: dict[str, Any] = {"expect": expected}
    answers = {INDEX: only, ASKED: unknown, MOUNTED: said("2049:9\n2049:7\n")}
    result = checked(serving(settings(**wanted)).with_(answers), **wanted)
    says = f"triton-llm still has the folder that was at {MODELS_FOLDER} when it was started, and another"
    assert set(messages(result).values()) == {f"{says} one is there now"}
    assert hint_of(result) == "on the host: systemctl restart triton@llm.service"


def test_files_that_systemd_has_not_read_are_read_with_a_reload_alone() -> None:
    assert (
        hint_of(checked(broken({SHOW: unit(NeedDaemonReload="yes")})))
        == "on the host: systemctl daemon-reload"
    )


@pytest.mark.parametrize(("state", "back"), [("active", True), ("failed", False)])
def test_a_models_folder_that_is_gone_under_a_server_is_brought_back_by_people(
    state: str, back: bool
) -> None:
    played = broken({} if back else stopped(), files={MODELS_FOLDER: None})
    (hint,) = (
        check.hint or "" for check in checked(played).checks if check.name == "model repository is there"
    )
    assert ("bring the folder back with its models" in hint) is back
    assert ("inv provision" in hint) is not back


def test_a_restart_that_is_owed_is_told() -> None:
    owed = broken({OWED_TO_SERVERS: said("restart-triton@llm.service\n")})
    says = "an earlier run ended before it could restart triton@llm.service"
    assert messages(checked(owed)) == {"no run ended early": says}


def test_a_server_without_a_model_of_its_own_is_not_called_healthy() -> None:
    only = http(json.dumps([{"name": CANARY_MODEL, "version": "1", "state": "READY"}]))
    wanted: dict[str, Any] = {"expect": None, "canaries": []}
    says = f"no model is in {MODELS_FOLDER} (expect: [] is for a server without)"
    assert messages(checked(serving(settings(**wanted)).with_({INDEX: only}), **wanted)) == {MODELS: says}
    assert hint_of(checked(serving(settings(**wanted)).with_({INDEX: only}), **wanted)) == (
        "put models there; then on the host: systemctl restart triton@llm.service"
    )
    polls = wanted | {"model_control": "poll"}
    assert "Triton finds them by itself" in hint_of(
        checked(serving(settings(**polls)).with_({INDEX: only}), **polls)
    )
    meant = wanted | {"expect": []}
    assert messages(checked(serving(settings(**meant)).with_({INDEX: only}), **meant)) == {}


def test_a_server_that_runs_with_a_model_that_would_not_load_again_is_a_warning() -> None:
    result = checked(broken({REPOSITORY: repository('name "x"')}))
    assert messages(result) == {}
    assert messages(result, "warn").keys() == {LOADABLE}
    assert "it would not start again" in messages(result, "warn")[LOADABLE]


@pytest.mark.parametrize("name", WARNINGS)
def test_concern_is_a_warning(name: str) -> None:
    played, instance, check, words = WARNINGS[name]
    result = checked(played, **instance)
    assert messages(result) == {}
    assert list(messages(result, "warn")) == [check]
    assert re.search(words, messages(result, "warn")[check])


@pytest.mark.parametrize(
    ("instance", "changed", "skipped"),
    [
        ({"image": "registry.example/own:1"}, {}, {"server is of the version of its tag", IMPORTS, FITS}),
        ({"canary": False, "expect": []}, {}, {MODELS, CANARY}),
        ({"canaries": []}, {}, {CANARIES}),
        ({"args": ["--allow-gpu-metrics=false"]}, {}, {SHOWS}),
        (
            {"image": "nvcr.io/nvidia/tritonserver:24.07-py3", "gpus": "none"},
            {INSIDE: said("", 127), INFERENCE: inference()},
            {SHOWS, NVML, PLAIN_SEES, WITH_NONE, IMPORTS, FITS},
        ),
        ({"gpus": ["MIG-0"]}, {}, {CANARY, SEES, SHOWS}),
        ({"gpus": [0]}, {}, set()),
        ({"gpus": [UUID]}, {}, set()),
        ({"address": "0.0.0.0"}, {INSPECT: container(address="0.0.0.0")}, {PORTS}),
        ({"env": {"A": "$x\ny"}}, {INSPECT: container(env=("A=$x\ny",))}, set()),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_skipped_with_a_reason(
    instance: dict[str, Any], changed: dict[str, Answer], skipped: set[str]
) -> None:
    result = checked(serving(settings(**instance)).with_(changed), **instance)
    assert messages(result) == {}
    assert messages(result, "skip").keys() == skipped
    assert all(messages(result, "skip").values())


def test_an_image_without_python_tells_nothing_of_nvml() -> None:
    without = plain().out.replace("== nvml\n\n== exit 0", "== nvml\npython3: not found\n== exit 127")
    assert messages(checked(broken({PLAIN: said(without)})), "skip") == {NVML: "the image has no python3"}


def test_an_environment_that_the_container_has_otherwise() -> None:
    wanted = {"env": {"A": "1", "B": "2"}}
    played = serving(settings(**wanted)).with_({INSPECT: container(env=("A=1", "B=3"))})
    assert messages(checked(played, **wanted)) == {RUNS: "triton-llm has another B than the settings say"}


def test_a_plain_container_sees_all_gpus_whatever_the_instance_has() -> None:
    both = gpus(row(), row() | {"index": "1", "uuid": OTHER})
    result = checked(serving(settings(gpus=[0])).with_({SMI: both}), gpus=[0])
    assert messages(result) == {PLAIN_SEES: "a container sees 1 of the 2 GPUs of the host"}


def test_selection_that_is_not_there_fails() -> None:
    result = checked(serving(settings(gpus=[7])), gpus=[7])
    assert messages(result) == {SEES: "GPU 7 of the settings is not on this host"}


def test_default_runtime_runc_expects_nothing_of_plain_containers() -> None:
    docker = {"default_runtime": "runc"}
    document = {
        "/etc/docker/daemon.json": There(
            '{"default-runtime": "runc", "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}'
        )
    }
    result = checked(broken({INFO: docker_info(DefaultRuntime="runc")}, files=document), docker)
    assert messages(result) == {}
    assert "default runtime is runc" in messages(result, "skip")[NVML]


@pytest.mark.parametrize(
    "words",
    [
        ["plain"],
        ["it's", 'a "b"', "100%", "$HOME", "back\\slash"],
        ["line\nbreak", "tab\there", "zwölf 🚀", "\x01"],
    ],
)
def test_the_command_of_a_unit_is_read_back_as_it_was_written(words: list[str]) -> None:
    unit_text = text_of(files_of(settings(args=words))[UNIT])
    assert command_of(unit_text)[-len(words) :] == words
