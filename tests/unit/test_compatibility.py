"""Which driver and GPU run which image, and hints that work."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.gpu.compatibility import all_verdicts, judge
from provision.gpu.driver_branches import BRANCHES, RECOMMENDED, Driver, lasting, read_driver
from provision.gpu.image_contents import Contents, contents_in, contents_of
from provision.gpu.models import DATA_CENTRE, FAMILIES, Model, find, of_device, similar
from provision.gpu.triton_releases import TAGS, Tag, Variant, read_tag, releases
from provision.gpu.verdict import Verdict


def verdict(image: str, driver: str = "", gpu: str = "") -> Verdict:
    """The verdict for what people write."""
    tag = read_tag(image)
    assert tag is not None
    contents = contents_of(tag)
    model = find(gpu) if gpu else None
    assert bool(model) is bool(gpu)
    return contents if isinstance(contents, Verdict) else judge(contents, read_driver(driver), model)


@pytest.mark.parametrize(
    ("image", "driver", "gpu", "kind", "words"),
    [
        # A driver as new as the CUDA of the variant.
        ("24.07-trtllm-python-py3", "580.159.04", "h100", "ok", "runs CUDA 12.4"),
        ("24.07-trtllm-python-py3", "550", "h100", "ok", "runs CUDA 12.4"),
        ("26.07-trtllm-python-py3", "590", "h100", "ok", "runs CUDA 13.1"),
        ("26.07-py3", "615", "", "ok", "runs CUDA 13.3"),
        ("23.10-trtllm-python-py3", "580", "", "ok", "runs CUDA 12 of"),
        # One of the same CUDA major.
        ("24.07-py3", "550.163.01", "l40s", "minor-version", "features after CUDA 12.4 are missing"),
        ("24.07-trtllm-python-py3", "525.60.13", "", "minor-version", "features after CUDA 12.0"),
        ("26.07-py3", "580.65.06", "h100", "minor-version", "features after CUDA 13.0"),
        ("26.10-trtllm-python-py3", "580", "", "minor-version", "runs CUDA 13 of"),
        # One of an older major.
        ("24.07-py3", "470.256.02", "a100", "forward-compat", "compatibility libraries of the image"),
        ("26.07-py3", "535", "h100", "forward-compat", "compatibility libraries of the image"),
        ("26.07-py3", "535", "rtx 4090", "fail", "for data centre GPUs only"),
        ("26.07-py3", "535", "8.9", "unknown", "data centre GPUs alone"),
        ("26.07-py3", "535", "", "unknown", "data centre GPUs alone"),
        ("26.07-py3", "545", "h100", "fail", "545 is not forward-compatible"),
        ("26.07-py3", "550", "h100", "unknown", "whether 550 is forward-compatible"),
        ("26.07-py3", "550", "rtx 4090", "fail", "for data centre GPUs only"),
        ("24.07-py3", "450", "a100", "fail", "450 is not forward-compatible"),
        ("23.04-py3", "450", "t4", "forward-compat", "compatibility libraries"),
        ("24.07-py3", "525.60.12", "t4", "unknown", "525.60.12 is too old"),
        # The GPU.
        ("24.10-py3", "580", "v100", "ok", ""),
        ("24.11-py3", "580", "v100", "fail", "compute capability 7.5 or more, and V100 has 7.0"),
        ("24.12-py3", "", "p100", "fail", "P100 has 6.0"),
        ("24.07-py3", "580", "b200", "unknown", "does not know B200, which came with CUDA 12.8"),
        ("25.01-py3", "580", "b200", "ok", ""),
        ("25.01-py3", "570", "rtx 5090", "ok", ""),
        ("24.07-py3", "595", "v100", "fail", "the last branch that does is 580"),
        ("24.07-py3", "550", "b200", "fail", "the first branch that does is 570"),
        ("24.07-py3", "470", "l40s", "fail", "the first branch that does is 535"),
        # What is not known.
        ("26.12-py3", "580", "h100", "unknown", "newer than the releases that are known here"),
        ("22.12-py3", "580", "h100", "unknown", "older than the releases"),
        ("23.01-vllm-python-py3", "580", "h100", "unknown", "no vllm-python-py3 of release 23.01"),
        ("24.07-py3-igpu", "580", "", "unknown", "Jetson"),
        ("24.07-py3", "", "h100", "unknown", "no driver is named; CUDA 12 begins with driver 525.60.13"),
        ("26.07-py3-cu12", "575", "h100", "ok", "runs CUDA 12 of"),
    ],
)
def test_verdicts(image: str, driver: str, gpu: str, kind: str, words: str) -> None:
    found = verdict(image, driver, gpu)
    assert found.kind == kind
    assert words in found.reason


TAG = st.builds(Tag, st.just(""), st.sampled_from(list(releases())), st.sampled_from(list(TAGS.values())))
DRIVER = st.builds(
    lambda branch, rest: read_driver(f"{branch}{rest}"),
    st.sampled_from([*BRANCHES, 390, 418, 440, 460, 640]),
    st.sampled_from(["", ".*", ".10.01", ".60.13", ".159.04"]),
)
GPU = st.one_of(
    st.none(),
    st.sampled_from(DATA_CENTRE),
    st.sampled_from([Model(name, capability, False) for name, capability, _ in FAMILIES]),
    st.integers(0x0F00, 0x3200).map(of_device),
)


@settings(max_examples=300, deadline=None)
@given(TAG, DRIVER, GPU)
def test_hints_work(tag: Tag, driver: Driver, gpu: Model | None) -> None:
    """A branch or an image that a hint names does not fail in its turn."""
    contents = contents_of(tag)
    if isinstance(contents, Verdict):
        return
    found = judge(contents, driver, gpu)
    assert "\n" not in found.reason
    assert not found.reason.endswith(".")
    if branch := re.search(r"driver\.branch: (\d+)", found.hint):
        again = judge(contents, Driver(int(branch[1])), gpu)
        assert again.kind != "fail", found
        assert found.kind != "minor-version" or again.kind in ("ok", "unknown")
    if image := re.search(r"image ([\w.-]+)", found.hint):
        other = contents_of(read_tag(image[1]) or tag)
        assert isinstance(other, Contents)
        assert other.capability <= (gpu.capability if gpu else (99, 0))
        if "driver.branch" in found.hint:
            assert judge(other, driver, gpu).kind in ("ok", "minor-version"), found


@given(TAG, st.sampled_from([n for n in BRANCHES if n >= 580]), GPU)
def test_a_newer_driver_never_spoils_what_an_older_one_runs(tag: Tag, branch: int, gpu: Model | None) -> None:
    contents = contents_of(tag)
    if isinstance(contents, Verdict) or (gpu and gpu.last_branch):
        return
    kinds = [judge(contents, Driver(n), gpu).kind for n in BRANCHES if n >= branch]
    assert "ok" not in kinds or set(kinds[kinds.index("ok") :]) == {"ok"}


def test_a_host_with_two_kinds_of_gpus_has_two_verdicts() -> None:
    contents = contents_of(Tag("", "24.12", "py3"))
    assert isinstance(contents, Contents)
    gpus = [of_device(0x1EB8), of_device(0x15F8), of_device(0x1EB8)]
    assert [found.kind for found in all_verdicts(contents, Driver(580), gpus)] == ["ok", "fail"]


# ── images by their own configuration ────────────────────────────────────────────────────────────────────

REQUIRES = (
    "cuda>=13.0 brand=unknown,driver>=535,driver<536 brand=tesla,driver>=535,driver<536"
    " brand=tesla,driver>=570,driver<571"
)


@pytest.mark.parametrize(
    ("config", "cuda", "accepts"),
    [
        ({"Env": ["PATH=/bin", "CUDA_VERSION=13.5.0.012"]}, (13, 5), ()),
        ({"Env": ["CUDA_VERSION=13.0.1", f"NVIDIA_REQUIRE_CUDA={REQUIRES}"]}, (13, 0), (535, 570)),
        ({"Env": None, "Labels": {"com.nvidia.cuda.version": "12.8"}}, (12, 8), ()),
        ({"Env": ["CUDA_VERSION=many"]}, None, ()),
        ({"Env": "CUDA_VERSION=13.0", "Labels": []}, None, ()),
        ({}, None, ()),
    ],
)
def test_what_an_image_says_itself(
    config: dict[str, object], cuda: tuple[int, int] | None, accepts: tuple[int, ...]
) -> None:
    found = contents_in(config, "27.01-py3")
    assert (found and (found.major, found.minor)) == cuda
    assert (found.accepts if found else ()) == accepts


def test_an_image_of_an_unknown_release_is_judged_by_itself() -> None:
    found = contents_in({"Env": ["CUDA_VERSION=13.5.0", f"NVIDIA_REQUIRE_CUDA={REQUIRES}"]}, "27.01", (7, 5))
    assert found is not None
    kinds = {n: judge(found, Driver(n), find("h100")).kind for n in (550, 570, 580, 620)}
    assert kinds == {550: "unknown", 570: "forward-compat", 580: "minor-version", 620: "ok"}
    assert judge(found, Driver(580), find("v100")).kind == "fail"
    newer = contents_in({"Env": ["CUDA_VERSION=14.0"]}, "28.01")
    assert newer is not None
    assert judge(newer, Driver(620)).kind == "unknown"


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.lists(st.text()))))
def test_any_configuration_is_read(config: dict[str, object]) -> None:
    contents_in(config, "x")


# ── drivers and GPUs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("580.159.04", Driver(580, (159, 4), "580.159.04")),
        ("580.159.04-1", Driver(580, (159, 4), "580.159.04")),
        ("1:535.261.03-1~deb12u1", Driver(535, (261, 3), "535.261.03")),
        ("580", Driver(580)),
        ("R580", Driver(580)),
        ("580.*", Driver(580)),
        ("58", None),
        ("latest", None),
        ("", None),
        ("580.159.04; rm", None),
    ],
)
def test_versions_of_drivers(text: str, driver: Driver | None) -> None:
    assert read_driver(text) == driver


def test_a_branch_to_go_to_gets_fixes() -> None:
    assert {lasting(n) for n in (450, 580, 590, 610)} == {580, 595, 620}
    assert not BRANCHES[RECOMMENDED].over


@pytest.mark.parametrize(
    ("text", "name", "capability", "data_centre"),
    [
        ("h100", "H100", (9, 0), True),
        ("NVIDIA H100 80GB HBM3", "H100", (9, 0), True),
        ("NVIDIA L40S", "L40S", (8, 9), True),
        ("l4", "L4", (8, 9), True),
        ("Tesla T4", "T4", (7, 5), True),
        ("A100-SXM4-80GB", "A100", (8, 0), True),
        ("a10g", "A10G", (8, 6), True),
        ("GH200 480GB", "GH200", (9, 0), True),
        (
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "RTX PRO 6000 Blackwell Server Edition",
            (12, 0),
            True,
        ),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 40 series (RTX 4090)", (8, 9), False),
        ("rtx3090", "GeForce RTX 30 series (RTX3090)", (8, 6), False),
        ("RTX 6000 Ada", "RTX Ada (RTX 6000 ADA)", (8, 9), False),
        ("rtx a6000", "RTX A series (RTX A6000)", (8, 6), False),
        ("8.9", "a GPU of compute capability 8.9", (8, 9), None),
    ],
)
def test_gpus_as_people_say_them(
    text: str, name: str, capability: tuple[int, int], data_centre: bool | None
) -> None:
    found = find(text)
    assert found is not None
    assert (found.name, found.capability, found.data_centre) == (name, capability, data_centre)


@pytest.mark.parametrize(
    ("text", "close"),
    [("h10", "H100"), ("NVIDIA L40X", "L40"), ("8.8", "8.9"), ("9", "9.0"), ("banana", ""), ("", "")],
)
def test_what_is_no_gpu_has_a_suggestion(text: str, close: str) -> None:
    assert find(text) is None
    assert similar(text) == close


@given(st.text())
def test_any_text_is_a_gpu_or_none(text: str) -> None:
    if find(text) is None:
        similar(text)


def test_device_ids_are_of_their_generation() -> None:
    """The table of models and the blocks of PCI ids were made from different sources."""
    for model in DATA_CENTRE:
        for device in model.devices:
            found = of_device(device)
            assert found is not None
            assert found.architecture is model.architecture, f"{model.name} {device:04x}"


@pytest.mark.parametrize(
    ("device", "data_centre", "capability"),
    [(0x2330, True, (9, 0)), (0x2684, False, (8, 9)), (0x1DB4, True, (7, 0)), (0x1B80, False, (6, 0))],
)
def test_gpus_on_the_bus(device: int, data_centre: bool, capability: tuple[int, int]) -> None:
    found = of_device(device)
    assert found is not None
    assert (found.data_centre, found.capability) == (data_centre, capability)


def test_a_gpu_of_no_known_generation_is_none() -> None:
    assert of_device(0xFFFF) is None


def test_every_variant_has_a_tag() -> None:
    assert set(TAGS) == set(get_args(Variant))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("24.07-trtlm-python-py3", "did you mean 24.07-trtllm-python-py3?"),
        ("24.07-TRTLLM-python-py3", "did you mean 24.07-trtllm-python-py3?"),
        ("24.07-foo", "NVIDIA has py3, "),
    ],
)
def test_a_tag_that_nvidia_does_not_have_is_not_judged_as_another(text: str, hint: str) -> None:
    tag = read_tag(text)
    assert tag is not None
    found = contents_of(tag)
    assert isinstance(found, Verdict)
    assert found.kind == "unknown"
    assert found.hint.startswith(hint)


@pytest.mark.parametrize("branch", [581, 600, 999])
def test_of_a_branch_that_nobody_knows_nothing_is_said(branch: int) -> None:
    tag = read_tag("24.07-py3")
    assert tag is not None
    contents = contents_of(tag)
    assert isinstance(contents, Contents)
    assert judge(contents, Driver(branch)).kind == "unknown"
