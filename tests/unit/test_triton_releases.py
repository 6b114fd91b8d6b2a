"""What tags of NVIDIA's image stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.gpu.triton_releases import (
    Certainty,
    Tag,
    Variant,
    read_tag,
    release_of,
    releases,
    server_version,
)

CAPTURED = Path(__file__).parent.parent / "data/captures/h100-580/triton/triton_host_v2.json"
DIGEST = "@sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("image", "release", "version"),
    [
        ("nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3", "24.07", "2.48.0"),
        (f"nvcr.io/nvidia/tritonserver:24.07-py3{DIGEST}", "24.07", "2.48.0"),
        ("localhost:5000/tritonserver:25.06", "25.06", "2.59.0"),
        ("nvcr.io/nvidia/tritonserver:25.07-py3", "25.07", "2.59.1"),
        ("nvcr.io/nvidia/tritonserver:26.10-py3", "26.10", None),  # inferred
        ("nvcr.io/nvidia/tritonserver:27.01-py3", "27.01", None),
        ("mine/tritonserver:24.13-py3", None, None),
        ("mine/tritonserver:2024-07", None, None),
        ("mine/tritonserver:24.07rc1", None, None),
        (f"mine/tritonserver{DIGEST}", None, None),
    ],
)
def test_tags(image: str, release: str | None, version: str | None) -> None:
    assert (release_of(image), server_version(image)) == (release, version)


@pytest.mark.parametrize(
    ("image", "variant", "major", "nvidias"),
    [
        ("24.07", "py3", None, True),
        ("24.07-py3-min", "py3", None, True),
        ("24.07-pyt-python-py3", "py3", None, True),
        ("26.07-trtllm-python-py3", "trtllm", None, True),
        ("tritonserver:26.07-vllm-python-py3", "vllm", None, True),
        ("26.07-vllm-python-py3-cu13", "vllm", 13, True),
        ("26.07-py3-cu130", "py3", 13, True),
        ("26.07-py3-cuda12.9", "py3", 12, True),
        ("mirror.example.org:5000/nvidia/tritonserver:26.07-py3", "py3", None, True),
        ("mirror.example.org/own-server:26.07-py3", "py3", None, False),
    ],
)
def test_what_a_tag_tells(image: str, variant: str, major: int | None, nvidias: bool) -> None:
    tag = read_tag(image)
    assert tag is not None
    assert (tag.variant, tag.cuda_major, tag.is_nvidias) == (variant, major, nvidias)


@given(st.text())
def test_any_text_is_a_tag_or_none(text: str) -> None:
    tag = read_tag(text)
    assert tag is None or (text.startswith(tag.name) and str(tag) in text)


def test_a_real_server_reports_the_version_of_its_release() -> None:
    assert json.loads(CAPTURED.read_text())["version"] == releases()["24.07"].server.value


def test_every_month_is_there_and_versions_rise() -> None:
    months = [f"{year}.{month:02d}" for year in range(23, 27) for month in range(1, 13)]
    assert list(releases()) == months[: months.index("26.10") + 1]
    versions = [tuple(map(int, one.server.value.split("."))) for one in releases().values()]
    assert versions == sorted(set(versions))


def test_every_cell_has_a_certainty_and_a_source() -> None:
    for release in releases().values():
        for cell in (release.server, release.capability, *release.cuda.values()):
            assert cell.certainty in get_args(Certainty)
            assert cell.source


def test_one_tag_can_mean_three_cuda_versions() -> None:
    cuda = {name: cell.value for name, cell in releases()["26.07"].cuda.items()}
    assert set(cuda) == set(get_args(Variant))
    assert len(set(cuda.values())) == 3


@pytest.mark.parametrize(
    ("release", "lowest"), [("23.01", "6.0"), ("24.10", "6.0"), ("24.11", "7.5"), ("26.10", "7.5")]
)
def test_the_lowest_compute_capability(release: str, lowest: str) -> None:
    assert releases()[release].capability.value == lowest


def test_a_tag_without_a_release_name_is_short() -> None:
    assert str(Tag("", "24.07", "")) == "24.07"
