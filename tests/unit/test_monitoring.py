"""Prometheus' targets: one for each instance with metrics, and a sentence where nobody can scrape it."""

from __future__ import annotations

from typing import Any

import pytest

from provision.roles.triton.monitoring import Targets, Watched, targets
from provision.roles.triton.role import TritonSettings

IMAGE = "nvcr.io/nvidia/tritonserver:24.07-py3"


def found(*hosts: str, **changes: Any) -> Targets:
    instance = {"image": IMAGE, "address": "0.0.0.0", **changes}
    settings = TritonSettings.model_validate({"instances": {"main": instance, "gone": None}})
    return targets(
        Watched(host, f"{host}.example.com", ("gpu", "paris"), settings) for host in hosts or ("n1",)
    )


def test_a_target_with_its_labels() -> None:
    labels = {"host": "n1", "instance": "main", "image_tag": "24.07-py3", "groups": "gpu,paris"}
    assert found() == Targets(({"targets": ["n1.example.com:8002"], "labels": labels},), ())


@pytest.mark.parametrize(
    ("address", "target", "warned"),
    [
        ("0.0.0.0", "n1.example.com:9102", False),
        ("::", "n1.example.com:9102", False),
        ("10.1.2.3", "10.1.2.3:9102", False),
        ("fd00::1", "[fd00::1]:9102", False),
        ("127.0.0.1", "n1.example.com:9102", True),
        ("127.0.0.53", "n1.example.com:9102", True),
        ("::1", "n1.example.com:9102", True),
    ],
)
def test_addresses(address: str, target: str, warned: bool) -> None:
    told = found(address=address, metrics_port=9102)
    assert told.entries[0]["targets"] == [target]
    assert [remark.split(" alone")[0] for remark in told.remarks] == [
        f"warning: n1: triton instance main has its metrics on {address}"
    ] * warned


@pytest.mark.parametrize(
    ("args", "off"),
    [
        (["--allow-metrics=false"], True),
        (["--allow-metrics", "0"], True),
        (["--allow-metrics OFF"], True),
        (["--allow-metrics=false", "--allow-metrics=true"], False),
        (["--allow-metrics=1"], False),
        (["--allow-gpu-metrics=false"], False),
    ],
)
def test_instances_without_metrics_are_left_out(args: list[str], off: bool) -> None:
    told = found("n1", "n2", args=args)
    assert len(told.entries) == (0 if off else 2)
    assert told.remarks == (
        ("left out: n[1-2]: triton instance main has --allow-metrics=false",) if off else ()
    )


def test_an_image_without_a_tag_has_its_digest() -> None:
    digest = f"sha256:{'0' * 64}"
    (entry,) = found(image=f"nvcr.io/nvidia/tritonserver@{digest}").entries
    assert entry["labels"]["image_tag"] == digest
