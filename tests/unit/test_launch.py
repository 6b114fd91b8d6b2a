"""Units of instances of every kind: golden, judged by systemd, and read back as they were meant."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.facts import Facts
from provision.render import render
from provision.resources.file import File
from provision.roles.triton.instance import Instance
from provision.roles.triton.launch import gpu_options, server
from provision.roles.triton.role import TritonSettings, environment_file, resources, unit_file
from provision.roles.triton.unit import command_of
from tests.roles.test_role import compare, write_root
from tests.unit.examples import IMAGE, with_gpus

GOLDEN = Path(__file__).parent.parent / "golden/units"
PY3 = "nvcr.io/nvidia/tritonserver:24.07-py3"
LLM: dict[str, Any] = {"image": IMAGE, "models": "/srv/models/llm", "shm_size": "2g", "ready_timeout": 900}
UNITS: dict[str, dict[str, Any]] = {
    "one-rank": LLM,
    "leader": {**LLM, "world_size": 2, "gpus": [0, 1], "args": ["--log-verbose=1"]},
    "orchestrator": {**LLM, "mpi": "orchestrator"},
    "vllm": {"image": PY3.replace("py3", "vllm-python-py3"), "shm_size": "8g", "env": {"HF_TOKEN": "s3cret"}},
    "gpus-subset": {"image": PY3, "gpus": [1, "GPU-8f7e0001-0000"]},
    "mig": {"image": PY3, "gpus": ["MIG-8f7e0001-0000"]},
    "cdi": {"image": PY3, "injection": "cdi", "gpus": [0, 1]},
    "cdi-all": {"image": PY3, "injection": "cdi"},
    "gpus-option": {"image": PY3, "injection": "gpus", "gpus": [0, 1]},
    "gpus-option-all": {"image": PY3, "injection": "gpus"},
    "cpu": {"image": PY3, "gpus": "none", "restart": "on-failure"},
    "hardened": {
        "image": PY3,
        "no_new_privileges": True,
        "capabilities": [],
        "read_only": True,
        "ulimits": {"nofile": 1048576},
        "env": {"HOME": "/tmp"},
    },
    "user": {"image": PY3, "user": "triton-server", "capabilities": ["SYS_NICE"]},
    "explicit": {"image": PY3, "model_control": "explicit", "load": ["resnet"], "expect": ["resnet"]},
    "asked": {
        "image": PY3,
        "address": "::1",
        "expect": ["resnet/2", "100% it's"],
        "canaries": [
            {
                "model": "resnet",
                "version": 2,
                "inputs": [{"name": "IN", "datatype": "BYTES", "shape": [1], "data": ['$x 100% "ä\n']}],
                "outputs": [
                    {"name": "OUT", "data": [1.5], "tolerance": 0.001},
                    {"name": "FLAG", "data": [True]},
                    {"name": "TEXT", "data": ["a\\b"]},
                ],
                "timeout": 20,
            }
        ],
    },
    "poll": {"image": PY3, "model_control": "poll", "args": ["--repository-poll-secs=60"]},
}
TWO_GPUS = with_gpus("Hopper", "Hopper")


def files(instance: Mapping[str, Any], name: str = "main", facts: Facts = TWO_GPUS) -> dict[str, File]:
    """The files of an instance."""
    chosen = TritonSettings.model_validate({"instances": {name: {"image": PY3, **instance}}})
    return {found.path: found for found in resources(chosen, facts) if isinstance(found, File)}


def unit_of(instance: Mapping[str, Any], name: str = "main") -> str:
    """The text of its unit."""
    return files(instance, name)[unit_file(name)].content.decode()


@pytest.mark.parametrize("name", UNITS)
def test_units_are_golden(name: str, update_golden: bool) -> None:
    compare(GOLDEN / f"triton@{name}.service", unit_of(UNITS[name], name), update=update_golden)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_in_golden_units(tmp_path: Path) -> None:
    units = {f"/etc/systemd/system/{file.name}": file.read_bytes() for file in GOLDEN.iterdir()}
    assert len(units) == len(UNITS)
    write_root(tmp_path, units)
    argv = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *units]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def segments(**changes: Any) -> list[list[str]]:
    """What mpirun is given for each rank."""
    words = server("main", Instance(**{**LLM, **changes}), gpus=2)
    text = "\0".join(words)
    assert text.startswith("mpirun\0--allow-run-as-root\0--bind-to\0none\0--mca\0odls_base_sigkill_timeout\0")
    return [part.split("\0")[2:] for part in re.split("\0(?=-n\0001\0)", text.replace("\0:\0", "\0"))[1:]]


@pytest.mark.parametrize("size", [2, 4])
def test_every_rank_is_a_server_of_which_the_first_has_ports_and_models(size: int) -> None:
    ranks = segments(world_size=size, args=["--log-verbose=1"])
    assert len(ranks) == size
    for number, rank in enumerate(ranks):
        assert rank[:2] == ["tritonserver", "--model-repository=/models"]
        assert rank[-2:] == [
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name=prefix{number}_",
        ]
        assert "--log-verbose=1" in rank
        without_ports = {"--allow-http=false", "--allow-grpc=false", "--allow-metrics=false"} <= set(rank)
        only_its_model = {"--model-control-mode=explicit", "--load-model=tensorrt_llm"} <= set(rank)
        assert without_ports == only_its_model == ("--model-repository=/opt/provision/models" not in rank)
        assert without_ports == (number > 0)


def test_only_the_first_rank_loads_what_the_settings_name() -> None:
    first, second = segments(world_size=2, model_control="explicit", load=["ensemble"])
    assert [word for word in first if "load" in word] == [
        "--load-model=provision_canary",
        "--load-model=ensemble",
    ]
    assert [word for word in second if "load" in word] == ["--load-model=tensorrt_llm"]
    assert sum("control" in word for word in second) == 1


@pytest.mark.parametrize(
    ("release", "gpus", "pools"),
    [("24.06", "all", 0), ("24.07", "all", 2), ("25.01", [1], 1), ("mine", ["GPU-a", "GPU-b"], 2)],
)
def test_an_orchestrator_leaves_the_gpus_memory_to_its_ranks(release: str, gpus: Any, pools: int) -> None:
    image = IMAGE.replace("24.07", release)
    (only,) = segments(image=image, gpus=gpus, mpi="orchestrator")
    found = [word for word in only if word.startswith("--cuda-memory-pool-byte-size=")]
    assert found == [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(pools)]
    assert (
        ("--enable-peer-access=false" in only) == ("--pinned-memory-pool-byte-size=0" in only) == bool(pools)
    )


def test_nothing_of_an_image_of_tensorrt_llm_changes_by_itself() -> None:
    assert server("main", Instance(**LLM), gpus=8)[0] == "tritonserver"


@pytest.mark.parametrize(
    ("changes", "loads"),
    [
        ({}, []),
        ({"model_control": "explicit"}, ["provision_canary"]),
        ({"model_control": "explicit", "canary": False}, []),
        ({"model_control": "explicit", "load": ["a"]}, ["provision_canary", "a"]),
        ({"model_control": "explicit", "load": ["*"]}, ["*"]),
        ({"args": ["--model-control-mode=explicit"]}, ["provision_canary"]),
        ({"args": ["--model-control-mode", "Explicit"]}, ["provision_canary"]),
        ({"args": ["--model-control-mode=explicit", "--load-model=*"]}, ["*"]),
        ({"args": ["--model-control-mode=poll"]}, []),
    ],
)
def test_the_canary_is_loaded_by_name_where_nothing_else_loads_it(
    changes: dict[str, Any], loads: list[str]
) -> None:
    """tritonserver 2.48.0 ends where ``--load-model=*`` stands beside another."""
    words = command_of(unit_of(changes))
    assert [word.removeprefix("--load-model=") for word in words if word.startswith("--load-model=")] == loads


def test_a_list_of_gpus_stays_one_value_of_the_option() -> None:
    """Docker reads it as CSV: without quotes of its own, ``0,1`` would be GPU 0 and a count of 1."""
    assert gpu_options(Instance(image=PY3, injection="gpus", gpus=[0, 1])) == [
        "--runtime=runc",
        '--gpus="device=0,1"',
    ]


@settings(max_examples=60)
@given(
    exit_timeout=st.integers(1, 86_400),
    ready_timeout=st.integers(10, 86_400),
    ranks=st.sampled_from([{}, {"world_size": 2}, {"mpi": "orchestrator"}]),
    restart=st.sampled_from(["always", "on-failure", "no"]),
)
def test_server_container_and_unit_end_in_this_order(
    exit_timeout: int, ready_timeout: int, ranks: dict[str, Any], restart: str
) -> None:
    instance = {"image": IMAGE, "exit_timeout": exit_timeout, "ready_timeout": ready_timeout, **ranks}
    text = unit_of({**instance, "restart": restart})
    words = command_of(text)
    seconds = {key: int(value) for key, value in re.findall(r"^(Timeout\w+)=(\d+)$", text, re.MULTILINE)}
    (stop,) = {int(word) for word in re.findall(r"--(?:stop-timeout|time)=(\d+)", text)}
    server_ends = exit_timeout
    if ranks:
        before_each_signal = int(words[words.index("odls_base_sigkill_timeout") + 1])
        assert exit_timeout < before_each_signal
        server_ends = 2 * before_each_signal
    assert f"--exit-timeout-secs={exit_timeout}" in words
    assert server_ends < stop < seconds["TimeoutStopSec"]
    assert ready_timeout < seconds["TimeoutStartSec"]
    assert f"\nRestart={restart}\n" in text
    # mpirun that is stopped ends with 1; nothing else may hide a failure from on-failure.
    assert f"\nSuccessExitStatus={'1 143' if ranks else '143'}\n" in text
    assert ("\nRestartForceExitStatus=1\n" in text) == (bool(ranks) and restart == "on-failure")


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r", max_codepoint=0xFDCF)
texts = st.text(characters | st.sampled_from("\\\"'`$%\n\t;# =🙂"), max_size=30)


def environment_of(text: str) -> dict[str, str]:
    """The variables of a file for EnvironmentFile= as systemd reads them (basic/env-file.c)."""
    pair = re.compile(r'^([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\n', re.MULTILINE | re.DOTALL | re.ASCII)
    left = pair.sub("", text)
    assert all(line.startswith("#") for line in left.splitlines()), left
    meant = {"\n": ""} | {character: character for character in '"\\`$'}
    return {
        name: re.sub(r"\\(.)", lambda escape: meant.get(escape[1], escape[0]), value, flags=re.DOTALL)
        for name, value in pair.findall(text)
    }


@settings(max_examples=150)
@given(
    values=st.lists(texts, max_size=4),
    steering=texts,
    args=st.lists(texts.filter(lambda text: not text.startswith("--")), max_size=3),
    value=texts,
    load=st.lists(texts.filter(lambda text: text not in ("", "*")), max_size=2),
    kind=st.sampled_from(
        [{"image": PY3}, {"image": IMAGE, "world_size": 2}, {"image": PY3, "injection": "gpus"}]
    ),
)
def test_what_settings_give_arrives_as_it_is(
    *, values: list[str], steering: str, args: list[str], value: str, load: list[str], kind: dict[str, Any]
) -> None:
    env = {f"V{number}": text for number, text in enumerate(values)} | {"LD_X": steering}
    args = [*args, f"--log-file={value}"]
    there = files({**kind, "env": env, "args": args, "model_control": "explicit", "load": load})
    words = command_of(there[unit_file("main")].content.decode())
    stands = words.index("tritonserver")
    loads = ["--load-model=provision_canary", *(f"--load-model={model}" for model in load)]
    first = words.index("--load-model=provision_canary", stands)
    assert words[first : first + len(loads) + len(args)] == [*loads, *args]
    assert [word for word in words if word.startswith(("--env=V", "--env=LD_"))] == [
        *(f"--env=V{number}" for number in range(len(values))),
        f"--env=LD_X={steering}",
    ]
    del env["LD_X"]
    assert environment_of(there[environment_file("main")].content.decode()) == env


def test_nothing_of_the_environment_is_in_the_unit() -> None:
    there = files(UNITS["vllm"])
    unit, environment = there[unit_file("main")], there[environment_file("main")]
    assert b"s3cret" not in unit.content
    assert (environment.mode, environment.sensitive) == ("0600", True)
    assert "s3cret" not in repr(gpu_options(Instance(**UNITS["vllm"])))


def test_the_gates_are_no_part_of_what_restarts_a_server() -> None:
    assert command_of(unit_of({})) == command_of(unit_of({"ready_timeout": 900, "expect": ["a"]}))
    assert render("triton/wait-ready.j2").startswith("#!/bin/bash\n")
