"""The lab that the tests in this folder share."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from lab import prerequisites
from lab.lab import Lab
from tests.lab.cli import LAB

HOSTS = 3
SUITES = ("bookworm", "bookworm", "trixie")


@pytest.fixture(scope="session")
def fit_machine() -> None:
    """Skip what needs lab hosts where there can be none."""
    if (reason := prerequisites.unfit()) is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report all skips for want of a lab at one place, so that pytest's summary has one line for them."""
    report = yield
    reason = prerequisites.unfit()
    if report.skipped and isinstance(report.longrepr, tuple) and report.longrepr[2] == f"Skipped: {reason}":
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def lab(fit_machine: None) -> Iterator[Lab]:
    """The lab of this process with bare hosts, made anew; taken down at the end, whatever that is.

    gpu-01 and gpu-02 have Debian 12, gpu-03 has Debian 13 and a sudo that asks for a password.
    """
    lab = Lab(LAB)
    lab.down()
    try:
        lab.up(HOSTS, suites=SUITES)
        yield lab
    finally:
        lab.down()
