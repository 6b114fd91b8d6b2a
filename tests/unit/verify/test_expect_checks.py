"""The checks of what was ordered, on a played host with an H100."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from provision.expectation.driver import FIELDS
from provision.expectation.settings import Expect
from provision.hardware import HARDWARE
from provision.verify.suite import Choice
from tests.unit.verify.healthy_driver import ADDRESS, HEALTHY, driver, row
from tests.unit.verify.played_host import look, said, verdicts

TOLD = rf"\ngpu_health {FIELDS[0]} {FIELDS[1]} [^\n]*$"
LINKS = r"\nnvlink_states$"
MADE_OF = rf"\n{HARDWARE.script}$"
THIS = Choice(expression="ordered")

ORDER = {
    "gpus": {
        "model": "H100",
        "count": 1,
        "name": "NVIDIA H100 80GB HBM3",
        "memory": "about 80 GiB",
        "pcie": {"generation": 5, "width": 16},
        "nvlinks": 2,
        "ecc": True,
    },
    "memory": "about 1 GiB",
    "driver": "580.159.04",
}
HOST = HEALTHY.with_(
    {
        TOLD: said(",".join(FIELDS) + "\n" + ", ".join(row()[field] for field in FIELDS) + "\n"),
        LINKS: said("GPU 0: NVIDIA H100 (UUID: GPU-0)\n\t Link 0: 26.562 GB/s\n\t Link 1: 26.562 GB/s\n"),
        MADE_OF: said("memory-kib 1048576\n"),
    }
)


def order(values: Any) -> Expect:
    return Expect.model_validate_json(json.dumps(values))


def test_a_host_that_is_what_was_ordered_passes_all_checks() -> None:
    result, connection = look(HOST, driver(), expect=order(ORDER))
    assert [check for check in result.checks if check.verdict != "pass"] == []
    assert len(result.checks) == 21 + 7
    assert connection.execs <= 6


def test_only_what_is_named_is_checked_and_asked() -> None:
    result, connection = look(HOST, driver(), expect=order({"gpus": {"ecc": True}}), choice=THIS)
    assert {check.name for check in result.checks} == {"hardware is as ordered", "ecc is as ordered"}
    assert not any(re.search(LINKS, line) for line in connection.asked)
    assert not any(re.search(MADE_OF, line) for line in look(HOST, driver())[1].asked)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"gpus": {"count": 2}}, "hardware is as ordered", f"expects 2 GPUs, has 1: at {ADDRESS}"),
    ({"memory": "at least 2 GiB"}, "hardware is as ordered", "expects at least 2 GiB of memory, has 1 GiB"),
    ({"driver": "590.*"}, "driver is the one ordered", "expects driver 590.*, has 580.159.04"),
    ({"gpus": {"name": "*H200*"}}, "gpus have the name ordered", "expects GPUs called *H200*: GPU 0 has"),
    ({"gpus": {"memory": "at least 1 TB"}}, "gpus have the memory ordered", "GPU 0 has 81559 MiB"),
    ({"gpus": {"pcie": {"generation": 6}}}, "pcie links are as ordered", "GPU 0 has generation 5 at most"),
    ({"gpus": {"nvlinks": 18}}, "nvlinks are as ordered", "expects 18 NVLinks up on each GPU: GPU 0 has 2"),
    ({"gpus": {"ecc": False}}, "ecc is as ordered", "expects ECC to be Disabled: GPU 0 has Enabled"),
]


@pytest.mark.parametrize(("values", "name", "said_"), WRONG, ids=lambda value: str(value)[:40])
def test_each_difference_is_one_failure(values: dict[str, Any], name: str, said_: str) -> None:
    result, _ = look(HOST, driver(), expect=order(values), choice=THIS)
    failed = verdicts(result, "fail")
    assert list(failed) == [name]
    assert said_ in failed[name].message
    allowed, _ = look(HOST, driver(), expect=order(values | {"differences": "allowed"}), choice=THIS)
    assert list(verdicts(allowed, "warn")) == [name]
    assert not verdicts(allowed, "fail")
