"""Many instances on a host: planning them is work in proportion, and little of it."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from provision.plan.declared import Declared
from provision.plan.plan import plan
from provision.roles.triton.role import TritonSettings, resources
from tests.unit.examples import H100, IMAGE

CALLS_AN_INSTANCE = 4000
"""Calls of Python functions; 2500 when this was written, and 50 instances took 0.2 s of a CPU."""


def planned(count: int) -> int:
    """Read settings of so many instances and plan them on a bare host; how many changes that gives."""
    ports = {name: 10_000 + number for number, name in enumerate(("http_port", "grpc_port", "metrics_port"))}
    settings = TritonSettings.model_validate(
        {
            "instances": {
                f"i{number}": {"image": IMAGE, **{name: port + 3 * number for name, port in ports.items()}}
                for number in range(count)
            }
        }
    )
    declared = [Declared("triton", resource) for resource in resources(settings, H100)]
    states = {item.resource.id: item.resource.bare() for item in declared}
    return len(plan("h", declared, states).changes)


def calls(count: int) -> int:
    """How many functions that calls."""
    counted = 0

    def count_calls(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count_calls)
    try:
        planned(count)
    finally:
        sys.setprofile(before)
    return counted


def test_planning_50_instances_is_work_in_proportion() -> None:
    assert planned(50) - planned(1) == 49 * 4
    ten, fifty = calls(10), calls(50)
    assert fifty < 6 * ten
    assert fifty < 50 * CALLS_AN_INSTANCE
