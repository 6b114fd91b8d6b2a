"""Plan and verify speak of the same faults, and a run leaves both without a word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.lab import Lab
from tests.conftest import cases
from tests.lab.agreement import AGREEMENT, disagreements
from tests.lab.cli import inv

pytestmark = [pytest.mark.lab, pytest.mark.campaign("agreement", only=True)]

HOSTS = ("gpu-01", "gpu-02")
"""Both have Debian 12, as the faults name versions of its packages."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A fault for each host at a time."""
    names = cases(metafunc.config, "agreement", AGREEMENT, len(HOSTS))
    batches = [names[at : at + len(HOSTS)] for at in range(0, len(names), len(HOSTS))]
    metafunc.parametrize("batch", batches, ids=" and ".join)


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Iterator[Lab]:
    """Both hosts provisioned from bare."""
    for name in HOSTS:
        lab.host(name).reset()
    answer = inv("provision", "--hosts", ",".join(HOSTS), "--yes", "--json")
    assert answer.code == 0, str(answer)
    yield lab


def test_plan_and_verify_agree(serving: Lab, batch: list[str]) -> None:
    assert disagreements([serving.host(name) for name in HOSTS], batch) == {}
