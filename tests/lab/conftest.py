"""The lab that the tests in this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import prerequisites
from tests.lab.lab import Lab

HOSTS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the lab, saying why, where there can be none."""
    if (reason := prerequisites.unfit()) is None:
        return
    for item in items:
        if "lab" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab "test" with bare hosts gpu-01 to gpu-03, made anew; taken down at the end, whatever that is."""
    lab = Lab("test")
    lab.down()
    try:
        lab.up(HOSTS)
        yield lab
    finally:
        lab.down()
