"""The CDI spec: what makes it stale, what is done about it, and what else names the same devices."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Change, Planned
from provision.roles.toolkit.cdi import GENERATED, KIND, QUESTION, REFRESH, CdiSpecs, CdiState, Spec, parse
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

CAPTURED = Path(__file__).parent.parent / "data/captures/h100-580/docker/nvidia.yaml"
DRIVER = "580.159.04"
UUID = "GPU-00000000-1111-2222-3333-444444444444"
HAND_MADE = "/etc/cdi/nvidia.yaml"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so."
WANTED = CdiSpecs("generated")
OTHERS = CdiSpecs("others")
REMOVE = CdiSpecs("others", remove=True)


def answer(*specs: tuple[str, bytes], driver: str = DRIVER, more: str = "") -> CdiState:
    """The state of a host with one H100, and with these spec files."""
    files = b"\n".join(b"==> %s <==\n%s" % (path.encode(), text) for path, text in specs)
    return parse(Output(0, f"driver {driver}\nuuid {UUID}\nminor 0\n{more}".encode() + files))


RIGHT = answer((GENERATED, CAPTURED.read_bytes()))


def changed(state: CdiState = RIGHT, **spec: object) -> CdiState:
    """The state with something else in the generated spec."""
    assert state.generated is not None
    return replace(state, specs=(replace(state.generated, **spec), *state.others))  # type: ignore[arg-type]


def change_of(state: CdiState, wanted: CdiSpecs = WANTED) -> Change:
    change = wanted.change(state, Planned())
    assert change is not None
    return change


# --- what is stale --------------------------------------------------------------------------------


def test_the_spec_of_a_real_host_is_right() -> None:
    spec = RIGHT.generated
    assert spec is not None
    assert spec.names == {"0", UUID, "all"}
    assert {"/dev/nvidia0", "/dev/nvidiactl", LIBRARY + DRIVER, "/usr/bin/nvidia-cdi-hook"} <= spec.paths
    assert RIGHT.faults(spec) == []
    assert WANTED.change(RIGHT, Planned()) is None
    assert OTHERS.change(RIGHT, Planned()) is None
    assert OTHERS.notes(RIGHT, Planned()) == ()


def paths(*add: str, drop: str = "-") -> frozenset[str]:
    assert RIGHT.generated is not None
    return frozenset(path for path in RIGHT.generated.paths if drop not in path) | set(add)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (replace(RIGHT, driver="570.211.01"), "it is of driver 580.159.04 and 570.211.01 is loaded"),
        (changed(paths=paths(LIBRARY + "570.1")), "it is of driver 570.1 and 580.159.04 is loaded"),
        (changed(gone=("/dev/dri/card0",)), "it names /dev/dri/card0, which the host does not have"),
        (changed(gone=("/a", "/b", "/c")), "it names /a and 2 more files, which"),
        (replace(RIGHT, minors=frozenset({0, 1, 2})), "it lacks /dev/nvidia1, /dev/nvidia2"),
        (changed(paths=paths("/dev/nvidia7")), "it names /dev/nvidia7, which is no GPU of the driver"),
        (replace(RIGHT, uuids=frozenset({"GPU-other"})), f"it names {UUID}, which is not in the host"),
        (changed(names=frozenset({"0", UUID})), "it has no device all"),
        (changed(problem="mapping values"), "it cannot be read: mapping values"),
        (replace(RIGHT, specs=()), f"there is no {GENERATED}"),
        (replace(RIGHT, at_boot=False), "nvidia-cdi-refresh is disabled, so it is missing after a reboot"),
        (
            replace(RIGHT, instances=frozenset({4}), capabilities=frozenset({3, 4})),
            "it is of another division of the GPUs (MIG)",
        ),
        (
            changed(paths=paths("/dev/nvidia-caps/nvidia-cap12")),
            "it is of another division of the GPUs (MIG)",
        ),
    ],
)
def test_what_makes_a_spec_stale(state: CdiState, says: str) -> None:
    change = change_of(state)
    assert (change.action, change.summary) == ("refresh", REFRESH)
    assert says in change.reason
    assert change.script == "refresh_cdi_spec"
    assert change.done == "cdi_was_refreshed"


@pytest.mark.parametrize(
    "state",
    [
        changed(names=frozenset({"all", "0"})),
        changed(names=frozenset({"all", UUID})),
        replace(RIGHT, at_boot=None),
        replace(  # divided: named by its parts only
            changed(
                paths=paths(
                    "/dev/nvidia-caps/nvidia-cap3", "/dev/nvidia-caps/nvidia-cap4", drop="/dev/nvidia0"
                ),
                names=frozenset({"all", "0:0"}),
            ),
            mig=frozenset({0}),
            instances=frozenset({4}),
            capabilities=frozenset({3, 4}),
        ),
    ],
)
def test_specs_that_are_as_right(state: CdiState) -> None:
    assert WANTED.change(state, Planned()) is None


@pytest.mark.parametrize("state", [WANTED.bare(), replace(RIGHT, driver="", specs=())])
def test_without_a_driver_there_is_nothing_to_describe(state: CdiState) -> None:
    assert WANTED.change(state, Planned()) is None
    assert OTHERS.change(state, Planned()) is None
    assert OTHERS.notes(state, Planned()) == ()


def test_the_handler_does_the_same_work() -> None:
    handler = Change(resource=f"handler:{REFRESH}", action="run", summary="", script="", done="")
    stale = replace(RIGHT, driver="570.211.01")
    assert WANTED.change(stale, Planned((handler,))) is None


# --- other specs ----------------------------------------------------------------------------------


def test_a_second_spec_is_named_and_kept() -> None:
    second = answer((GENERATED, CAPTURED.read_bytes()), (HAND_MADE, CAPTURED.read_bytes()))
    assert WANTED.change(second, Planned()) is None
    assert OTHERS.change(second, Planned()) is None
    (note,) = OTHERS.notes(second, Planned())
    assert note.startswith(f"{HAND_MADE}, a second CDI spec of {KIND}, is kept up to date by nobody")


def test_a_stale_second_spec_is_named_with_what_is_stale() -> None:
    old = CAPTURED.read_bytes().replace(b".so.580.159.04", b".so.535.261.03")
    state = answer((GENERATED, CAPTURED.read_bytes()), (HAND_MADE, old), more=f"gone {LIBRARY}535.261.03\n")
    (note,) = OTHERS.notes(state, Planned())
    assert "is stale: it is of driver 535.261.03 and 580.159.04 is loaded" in note
    assert "other_cdi_specs: remove" in note


def test_a_second_spec_is_removed_where_that_is_wanted() -> None:
    state = answer((GENERATED, CAPTURED.read_bytes()), (HAND_MADE, CAPTURED.read_bytes()))
    change = change_of(state, REMOVE)
    assert change.action == "remove"
    assert change.script == f"remove_cdi_specs {HAND_MADE}"
    assert change.done == f"[ ! -e {HAND_MADE} ]"
    assert REMOVE.notes(state, Planned()) == ()


def test_two_specs_of_one_folder_are_refused_if_they_share_names() -> None:
    twin = GENERATED.replace("nvidia.yaml", "by-hand.json")
    state = answer((GENERATED, CAPTURED.read_bytes()), (twin, CAPTURED.read_bytes()))
    with pytest.raises(Refusal, match=re.escape(f"{twin} names devices of {KIND}")) as caught:
        OTHERS.change(state, Planned())
    assert "other_cdi_specs: remove" in str(caught.value.hint)
    assert change_of(state, REMOVE).action == "remove"
    apart = replace(state, specs=(state.specs[0], Spec(twin, frozenset({"mine"}))))
    assert OTHERS.change(apart, Planned()) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"kind: nvidia.com/gpu\ndevices: [", "while parsing a flow node"),
        (b"kind: nvidia.com/gpu\n", "KeyError: 'devices'"),
        (b"kind: nvidia.com/gpu\ndevices: 3\n", "TypeError"),
        (b"nvidia.com/gpu", "TypeError"),
    ],
)
def test_specs_that_nobody_can_read_are_named(text: bytes, problem: str) -> None:
    state = answer((GENERATED, CAPTURED.read_bytes()), (HAND_MADE, text))
    assert any(spec.problem.startswith(problem) for spec in state.others)
    (note,) = OTHERS.notes(state, Planned())
    assert "is stale: it cannot be read" in note


def test_other_kinds_do_not_count() -> None:
    text = CAPTURED.read_bytes().replace(b"kind: nvidia.com/gpu", b"kind: management.nvidia.com/gpu")
    assert answer(("/var/run/cdi/management.yaml", text)).specs == ()


# --- the question ---------------------------------------------------------------------------------


def host(root: Path) -> None:
    """A host as the question sees it: one GPU, and a spec whose files are there but for one library."""
    spec = yaml.safe_load(CAPTURED.read_text())
    named = [mount["hostPath"] for mount in spec["containerEdits"]["mounts"]]
    for path in (
        *named,
        "/dev/nvidia0",
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/usr/bin/nvidia-cdi-hook",
    ):
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).touch()
    (root / named[0].lstrip("/")).unlink()
    text = re.sub(r"([pP]ath: )/", rf"\g<1>{root}/", CAPTURED.read_text())
    files = {
        "sys/module/nvidia/version": f"{DRIVER}\n",
        "proc/driver/nvidia/gpus/0000:06:00.0/information": f"Model: \t\t H100\nGPU UUID: \t {UUID}\n"
        "Device Minor: \t 0\n",
        "proc/driver/nvidia/capabilities/gpu0/mig/gi1/access": "DeviceFileMinor: 12\n",
        "proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access": "DeviceFileMinor: 13\n",
        "var/run/cdi/nvidia.yaml": text,
        "etc/cdi/other.yaml": "kind: vendor.example.org/gpu\n",
        "etc/cdi/nvidia.json": f'{{\n  "kind": "{KIND}",\n  "devices": [],\n'
        '  "containerEdits": {"mounts": [\n    {\n      "hostPath": "/no/such/file"\n    }]}\n}\n',
        "usr/lib/systemd/system/nvidia-cdi-refresh.service": "",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_question_and_its_answer(shell: str, tmp_path: Path) -> None:
    host(tmp_path)
    script = re.sub(r"(?<![\w.>}])/(sys|proc|etc|var|usr|lib)/", rf"{tmp_path}/\1/", script_of(QUESTION))
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True)
    assert ran.stderr == b""
    state = parse(Output(0, ran.stdout))
    assert replace(state, specs=()) == CdiState(
        driver=DRIVER,
        uuids=frozenset({UUID}),
        minors=frozenset({0}),
        mig=frozenset({0}),
        instances=frozenset({13}),
        capabilities=frozenset({12, 13}),
        at_boot=False,
    )
    hand_made, generated = sorted(state.specs, key=lambda spec: spec.path)
    assert hand_made.path == f"{tmp_path}/etc/cdi/nvidia.json"
    assert hand_made.gone == ("/no/such/file",)
    assert generated.path == f"{tmp_path}/var/run/cdi/nvidia.yaml"
    assert len(generated.gone) == 1


def test_an_answer_that_is_none() -> None:
    with pytest.raises(ValueError, match="no answer about CDI"):
        parse(Output(1, b"", b"sh: not found"))
    with pytest.raises(ValueError, match="no answer about CDI: head: cannot open"):
        parse(Output(1, f"driver {DRIVER}\n".encode(), b"head: cannot open"))
