"""The lab that the tests in this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import prerequisites
from tests.lab.lab import Lab

HOSTS = 3


@pytest.fixture(scope="session")
def fit_machine() -> None:
    """Skip what needs lab hosts where there can be none; pytest shows the reason once."""
    if (reason := prerequisites.unfit()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def lab(fit_machine: None) -> Iterator[Lab]:
    """The lab "test" with bare hosts gpu-01 to gpu-03, made anew; taken down at the end, whatever that is."""
    lab = Lab("test")
    lab.down()
    try:
        lab.up(HOSTS)
        yield lab
    finally:
        lab.down()
