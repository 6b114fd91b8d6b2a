"""What tags of NVIDIA's image stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provision.gpu.triton_releases import SERVER_VERSIONS, has_known_rce, release_of, server_version

CAPTURED = Path(__file__).parent.parent / "data/captures/h100-580/triton/triton_host_v2.json"


@pytest.mark.parametrize(
    ("image", "release", "version", "known_rce"),
    [
        ("nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3", "24.07", "2.48.0", True),
        ("nvcr.io/nvidia/tritonserver:24.07-py3@sha256:" + "0a" * 32, "24.07", "2.48.0", True),
        ("localhost:5000/tritonserver:25.06", "25.06", "2.59.0", True),
        ("nvcr.io/nvidia/tritonserver:25.07-py3", "25.07", None, False),
        ("nvcr.io/nvidia/tritonserver:26.07-py3", "26.07", "2.71.0", False),
        ("mine/tritonserver:2024-07", None, None, False),
        ("mine/tritonserver:24.07rc1", None, None, False),
        ("mine/tritonserver@sha256:" + "0a" * 32, None, None, False),
    ],
)
def test_tags(image: str, release: str | None, version: str | None, known_rce: bool) -> None:
    assert (release_of(image), server_version(image), has_known_rce(image)) == (release, version, known_rce)


def test_a_real_server_reports_the_version_of_its_release() -> None:
    assert json.loads(CAPTURED.read_text())["version"] == SERVER_VERSIONS["24.07"]


def test_versions_rise_with_releases() -> None:
    versions = [tuple(map(int, version.split("."))) for _, version in sorted(SERVER_VERSIONS.items())]
    assert versions == sorted(set(versions))
