"""Options of all tests, and campaigns: many cases of which most runs take a sample."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Take interrupts: a shell that starts the tests in the background has them ignored, here and below."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the golden files anew; a campaign runs as a whole, or a sample of it."""
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew; look at the difference in git"
    )
    parser.addoption("--campaign", default="", help="run all cases of this campaign, and nothing else")
    parser.addoption("--seed", default="1", help="chooses the samples of campaigns")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is of another campaign; or without one what is for campaigns only, or not in the sample.

    :raises pytest.UsageError: if no test is of the campaign.
    """
    name = config.getoption("--campaign")

    def wanted(item: pytest.Item) -> bool:
        marks = list(item.iter_markers("campaign"))
        if name:
            return any(mark.args == (name,) for mark in marks)
        return not any(mark.kwargs.get("only") for mark in marks)

    chosen = [item for item in items if wanted(item)]
    if name and not chosen:
        raise pytest.UsageError(f"there is no campaign {name!r}")
    if not (name or config.option.keyword):
        chosen = _sampled(chosen, str(config.getoption("--seed")))
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what the cases of campaigns noted: where a run was cut, how long a stage took."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, told in report.user_properties:
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {name}: {told}")


def _sampled(items: Sequence[pytest.Item], seed: str) -> list[pytest.Item]:
    """Of the tests of a file whose mark says ``sample=N``, so many that the seed chooses."""
    files: dict[Path, list[pytest.Item]] = {}
    sizes: dict[Path, int] = {}
    for item in items:
        for mark in item.iter_markers("campaign"):
            if "sample" in mark.kwargs:
                files.setdefault(item.path, []).append(item)
                sizes[item.path] = mark.kwargs["sample"]
    left_out: set[pytest.Item] = set()
    for path, there in files.items():
        size = min(sizes[path], len(there))
        left_out |= set(there) - set(random.Random(f"{seed} {path.name}").sample(there, size))
    return [item for item in items if item not in left_out]


def cases(config: pytest.Config, campaign: str, all_cases: Mapping[str, object], size: int) -> Sequence[str]:
    """The names of a campaign's cases that this run takes: all, or a sample that the seed chooses."""
    if config.getoption("--campaign") == campaign:
        return list(all_cases)
    chosen = set(random.Random(str(config.getoption("--seed"))).sample(sorted(all_cases), size))
    return [name for name in all_cases if name in chosen]


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are written instead of compared."""
    return bool(request.config.getoption("--update-golden"))
