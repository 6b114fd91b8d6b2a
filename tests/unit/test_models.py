"""Model repositories on a host: what keeps an instance from loading its models is told before its restart."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Change, Planned
from provision.roles.triton.canaries import INPUT
from provision.roles.triton.instance import Instance
from provision.roles.triton.model_config import Unread, read_config
from provision.roles.triton.repository import (
    MODELS,
    Fault,
    Model,
    ModelRepository,
    Repository,
    faults,
    parse,
    probe_of,
)
from provision.roles.triton.role import TritonSettings, gpus_in, resources
from provision.roles.triton.unit import models_signal
from provision.shell import assembled
from tests.unit.examples import H100, IMAGE
from tests.unit.sandbox import SHELLS

FOLDER = "/srv/triton/main/models"
GPU = "instance_group [ { kind: KIND_GPU gpus: [ %s ] } ]"


def model(config: str | None = "", *versions: str) -> Model:
    content = None if config is None else config.encode()
    return Model(versions or ("1",), has_config=content is not None, config=content)


def told(model: Model, there: int = 2, **instance: Any) -> list[str]:
    """What is wrong with a repository that holds this model."""
    one = Instance.model_validate({"image": IMAGE, **instance})
    found = faults(FOLDER, one, Repository({"m": model}), there)
    return [f"{fault}{'' if fault.sure else ' ?'}" for fault in found]


AT = f"{FOLDER}/m/config.pbtxt"
STRICT = {"args": ["--disable-auto-complete-config"]}

PLAIN = {"image": IMAGE.replace("trtllm-python-", "")}

WRONG: list[tuple[Model, dict[str, Any], str]] = [
    (model('name "m"'), {}, f'{AT}:1: Expected ":"'),
    (model('name: "m"\n\nmax_batch_size: 1.5'), {}, f"{AT}:3: Couldn't parse integer: 1.5"),
    (model("input [ {"), {}, f'{AT}:1: Expected "}}"'),
    (model('name: "other"'), {}, f"{AT}: name is 'other', and must be 'm', as its folder"),
    (model(GPU % "0, 2"), {}, f"{AT}: instance_group wants GPU 2, and the container has GPUs 0 to 1"),
    (model(GPU % "1"), {"gpus": [1]}, f"{AT}: instance_group wants GPU 1, and the container has GPU 0 alone"),
    (
        model("instance_group { kind: KIND_GPU }"),
        {**PLAIN, "gpus": "none"},
        f"{AT}: instance_group has KIND_GPU",
    ),
    (Model(has_config=True, config=b""), {}, f"{FOLDER}/m: it has no version"),
    (Model(), {}, f"{FOLDER}/m: it has no version"),
    (Model(("1",), has_config=True, odd=True), {}, f"{AT}: it is not a regular file"),
    (model("", "01"), {}, f"{FOLDER}/m: it has no version"),
    (model("version_policy { specific { versions: [ 3 ] } }"), {}, f"{AT}: version_policy wants [3]"),
    (model(None), STRICT, f"{FOLDER}/m: it has no config.pbtxt, and Triton is told not to complete it"),
    (model(None), {"args": ["--strict-model-config=true"]}, f"{FOLDER}/m: it has no config.pbtxt"),
    (model(), {"model_control": "explicit", "load": ["n"]}, f"{FOLDER}: model n is not there"),
    (model(), {"expect": ["n/2"]}, f"{FOLDER}: model n is not there"),
    (model("", "1"), {"expect": ["m/2"]}, f"{FOLDER}/m: the settings name version 2, and there is 1"),
    (
        model(None, "1", "3"),
        {"expect": ["m/1"]},
        f"{FOLDER}/m: the settings name version 1, and by its version_p",
    ),
    (
        model("version_policy { specific { versions: [ 1 ] } }", "1", "2"),
        {"expect": ["m/2"]},
        f"{FOLDER}/m: the settings name version 2, and by its version_policy Triton loads 1",
    ),
    (
        model("", "1"),
        {"expect": ["m"], "canaries": [{"model": "m", "version": 2, "inputs": [INPUT]}]},
        f"{FOLDER}/m: the settings name version 2, and there is 1",
    ),
    (
        model(),
        {
            "canaries": [
                {"model": "n", "inputs": [{"name": "I", "datatype": "FP32", "shape": [], "data": [1]}]}
            ]
        },
        f"{FOLDER}: model n is not there",
    ),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_triton_refuses_is_told_with_its_place(number: int) -> None:
    one, instance, says = WRONG[number]
    (found,) = told(one, gpus_in(Instance.model_validate({"image": IMAGE, **instance}), 2), **instance)
    assert found.startswith(says)


RIGHT: list[tuple[Model, dict[str, Any]]] = [
    (model(), {}),
    (model(None), {}),
    (model("", "0"), {}),
    (model("", "1_old"), {}),
    (model(None), {"args": ["--strict-model-config=false"]}),
    (model("\ufeffname: 'm' # \xe4\r\nmax_batch_size: 010;"), {}),
    (Model(("1",), has_config=True, config=b"# \xff\xfe\nname: 'm'"), {}),
    (Model(("1",), has_config=True, config=None), {}),  # too large to be read
    (Model(linked=True), {}),
    (Model(("1",), has_config=True, odd=True), {"args": ["--model-config-name=x"]}),
    (model(GPU.replace("KIND_GPU", "KIND_AUTO") % "7"), {}),
    (model("input [ { data_type: 99 } ]"), {}),
    (model("version_policy { specific { versions: [ 1, 3 ] } }"), {}),
    (Model(has_config=True, config=b"model_repository_agents { agents { name: 'fetch' } }"), {}),
    (model(f"ensemble_scheduling {{ step {{ }} }} {GPU}" % "7"), {}),
    (model("broken {{{"), {"model_control": "explicit", "load": []}),
    (model("broken {{{"), {"args": ["--exit-on-error=false", "--strict-readiness=false"], "expect": []}),
    (model("broken {{{"), {"args": ["--model-config-name=h100"]}),
    (model("broken {{{"), {"mounts": ["/srv/other:/models/m"]}),
    (model(), {"expect": ["m/1", "provision_canary"]}),
    (model("", "1", "10"), {"expect": ["m/10"]}),
    (model("version_policy { latest { num_versions: 2 } }", "1", "2", "3"), {"expect": ["m/2", "m/3"]}),
    (model("version_policy { all { } }", "1", "2"), {"expect": ["m/1"]}),
    (model("version_policy { specific { versions: [ 1 ] } }", "1", "2"), {"expect": ["m/1"]}),
    (Model(("1",), has_config=True, config=None), {"expect": ["m/2"]}),
    (Model(("1",), linked=True), {"expect": ["m/2"]}),
    (
        Model(("1",), has_config=True, config=b"model_repository_agents { agents { name: 'fetch' } }"),
        {"expect": ["m/2"]},
    ),
    (model("", "1"), {"expect": ["m/2"], "args": ["--model-config-name=h100"]}),
]


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_what_triton_takes_is_never_refused(number: int) -> None:
    one, instance = RIGHT[number]
    assert told(one, **instance) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            'name: "m"\nnew_thing: 3',
            f'{AT}:2: Message type "inference.ModelConfig" has no field named "new_thing" ?',
        ),
        (
            "input [ { data_type: TYPE_FP4 } ]",
            f'{AT}:1: Enum type "inference.DataType" has no value named TYPE_FP4 ?',
        ),
    ],
)
def test_what_a_newer_triton_may_know_is_a_note(config: str, says: str) -> None:
    assert told(model(config)) == [says]


def test_an_empty_repository_may_be_a_mount_that_is_not_there_yet() -> None:
    one = Instance(image=IMAGE, model_control="explicit", load=["n"])
    assert faults(FOLDER, one, Repository(), 1) == []
    assert faults(FOLDER, one, Repository({"m": model()}, whole=False), 1) == []


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(max_size=300), st.text(alphabet="nam:{}[]<>\"'\\ \n#0-.,;x\x00\ufeffé", max_size=200))
)
def test_no_text_of_a_configuration_does_harm(text: bytes | str) -> None:
    content = text.encode() if isinstance(text, str) else text
    found = read_config(content)
    if isinstance(found, Unread):
        assert found.why
        assert len(found.why) <= 200
        assert str(Fault("a", found.why)).isprintable()


@pytest.mark.parametrize("text", [b"foo {" * 20_000, b"foo: [" * 20_000, b"dynamic_batching {" * 9_000])
def test_deep_nesting_does_no_harm(text: bytes) -> None:
    assert isinstance(read_config(text), Unread)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_no_answer_of_a_host_does_harm(data: bytes) -> None:
    try:
        parse(Output(0, b"r /a\0m m\0v 1\0c\0\0" + data))
        parse(Output(0, data))
    except (ValueError, LookupError) as error:
        assert isinstance(error, ValueError)


# ── on a host ────────────────────────────────────────────────────────────────────────────────────────────


def read(shell: str, *folders: Path) -> tuple[dict[str, Repository], int, float]:
    """What the probe tells of these folders, its size and the seconds that it took."""
    script = f"{assembled(MODELS)}{probe_of([str(folder) for folder in folders]).script}"
    began = time.monotonic()
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=False)
    return parse(Output(ran.returncode, ran.stdout, ran.stderr)), len(ran.stdout), time.monotonic() - began


def put(folder: Path, name: str, config: str | bytes | None = "", *versions: str) -> Path:
    for version in versions or ("1",):
        (folder / name / version).mkdir(parents=True)
    if config is not None:
        (folder / name / "config.pbtxt").write_bytes(config.encode() if isinstance(config, str) else config)
    return folder / name


@pytest.mark.parametrize("shell", SHELLS)
def test_a_repository_is_read_as_it_is(shell: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one it's", tmp_path / "two"
    put(one, "a", 'name: "a"', "1", "2", "labels")
    put(one, "b\nr x", None)
    put(one, "*", b"\xff\0\n==> x <==\n")
    put(two, "big", "#" * 300_000)
    put(two, "c")
    (one / "README").write_text("no model")
    (one / "link").symlink_to("/nowhere")
    put(one, "d", None)
    (one / "d/config.pbtxt").symlink_to("/nowhere")
    put(one, "e", None)
    os.mkfifo(one / "e/config.pbtxt")
    found, _, _ = read(shell, one, tmp_path / "none", two)
    assert found == {
        str(one): Repository(
            {
                "*": Model(("1",), has_config=True, config=b"\xff\0\n==> x <==\n"),
                "a": Model(("1", "2"), has_config=True, config=b'name: "a"'),
                "b\nr x": Model(("1",)),
                "d": Model(linked=True),
                "e": Model(("1",), has_config=True, odd=True),
                "link": Model(linked=True),
            }
        ),
        str(two): Repository({"big": Model(("1",), has_config=True), "c": Model(("1",), True, b"")}),
    }
    assert read(shell, tmp_path / "none")[0] == {}


def test_a_repository_of_many_models_does_no_harm(tmp_path: Path) -> None:
    for number in range(500):
        put(tmp_path, f"m{number}", f'name: "m{number}"\n' + "# 1234567\n" * 300)
    put(tmp_path, "huge", b"#" * 10_000_000)
    found, size, seconds = read("dash", tmp_path)
    assert len(found[str(tmp_path)].models) == 501
    assert size < 2_300_000
    began = time.monotonic()
    assert not faults(str(tmp_path), Instance(image=IMAGE), found[str(tmp_path)], 1)
    assert seconds < 5
    assert time.monotonic() - began < 10


# ── in a plan ────────────────────────────────────────────────────────────────────────────────────────────


def declared(**changes: Any) -> ModelRepository:
    chosen = TritonSettings.model_validate({"instances": {"main": {"image": IMAGE, **changes}}})
    (found,) = (one for one in resources(chosen, H100) if isinstance(one, ModelRepository))
    return found


def made(resource: str, action: str = "run", *signals: str, reboot: int = 0) -> Planned:
    return Planned((Change(resource, action, "", "", "", signals=signals, reboot=reboot),))


BAD = Repository({"m": model('name: "x"'), "n": model("name: y")})
UNIT = "triton@main.service"
STARTS = [
    made(f"service:{UNIT}", "start"),
    made(f"service:{UNIT}", "await"),
    made(f"handler:restart {UNIT}"),
    made(f"command:{UNIT}", "restart"),
    made(f"image-of:{UNIT}", "restart"),
    made(f"handler:wait for {UNIT}"),
    made("reboot:x", reboot=900),
]


@pytest.mark.parametrize("planned", STARTS)
def test_a_start_that_would_fail_is_refused_before_anything_is_touched(planned: Planned) -> None:
    with pytest.raises(Refusal) as caught:
        declared().change(BAD, planned)
    assert caught.value.message == (
        f"{UNIT} cannot start: {AT}: name is 'x', and must be 'm', as its folder; and 1 more"
    )
    with pytest.raises(Refusal, match="; and at least 1 more"):
        declared().change(replace(BAD, whole=False), planned)


@pytest.mark.parametrize("planned", [Planned(), made("file:/etc/triton/main.env", "update")])
def test_what_serves_goes_on_and_the_plan_has_a_note(planned: Planned) -> None:
    assert declared().change(BAD, planned) is None
    notes = declared().notes(BAD, planned)
    assert notes[0] == f"{UNIT}: it would not start again: {AT}: name is 'x', and must be 'm', as its folder"
    assert len(notes) == 2


def test_models_that_the_plan_brings_are_not_judged() -> None:
    assert (
        declared().change(BAD, Planned((*STARTS[0].changes, *made(f"file:{FOLDER}/m/config.pbtxt").changes)))
        is None
    )


@pytest.mark.parametrize("planned", STARTS)
@pytest.mark.parametrize(
    "named",
    [
        {"expect": ["echo"]},
        {"load": ["echo"], "model_control": "explicit"},
        {"load": ["echo"], "model_control": "explicit", "expect": []},
    ],
)
def test_a_server_that_is_up_is_not_restarted_into_an_empty_repository(
    planned: Planned, named: dict[str, Any]
) -> None:
    """One that is down waits for its models, which may be on a mount that comes."""
    (change,) = planned.changes
    resource = declared(**named)
    if change.resource.startswith("service:") or change.reboot:
        assert resource.change(Repository(), planned) is None
        return
    with pytest.raises(
        Refusal, match=rf"{UNIT} is up, and would not get ready again: {FOLDER} has no model.*echo"
    ):
        resource.change(Repository(), planned)
    brings = (*planned.changes, *made(f"file:{FOLDER}/echo/config.pbtxt").changes)
    assert resource.change(Repository(), Planned(brings)) is None
    assert declared().change(Repository(), planned) is None


@pytest.mark.parametrize("named", [{}, {"expect": []}, {"expect": ["echo"]}])
def test_a_server_that_is_up_is_not_restarted_into_a_new_folder(named: dict[str, Any]) -> None:
    """Its folder is gone, and the container still has it; a new instance gets its folder."""
    create, restart = made(f"directory:{FOLDER}", "create").changes, STARTS[2].changes
    with pytest.raises(Refusal, match=f"{UNIT} is up, and {FOLDER} is not there") as caught:
        declared(**named).change(Repository(), Planned((*create, *restart)))
    assert f"mkdir -p {FOLDER}" in str(caught.value.hint)
    assert declared(**named).change(Repository(), Planned((*create, *STARTS[0].changes))) is None
    moved = made("file:/unit", "update", models_signal(UNIT)).changes
    if "echo" not in named.get("expect", []):
        assert declared(**named).change(Repository(), Planned((*moved, *create, *restart))) is None
    brings = made(f"file:{FOLDER}/echo/config.pbtxt").changes
    assert declared(**named).change(Repository(), Planned((*create, *restart, *brings))) is None


def test_an_empty_repository_is_a_note_unless_it_is_meant() -> None:
    nothing = f"{UNIT}: no model is in {FOLDER} (expect: [] is for a server without)"
    assert declared().notes(Repository(), Planned()) == [nothing]
    assert declared(expect=[]).notes(Repository(), Planned()) == []
    assert declared(model_control="explicit").notes(Repository(), Planned()) == []
    assert declared().notes(Repository({"m": model()}), Planned()) == []
