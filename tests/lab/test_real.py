"""The trial of a real machine, on a lab host: what it needs no GPU for, and what it refuses."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from tests.lab.cli import INVENTORY, inv

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.campaign("real", only=True)]

SKIPPED = {"a model on the GPU answers", "metrics show the GPU's memory"}


def test_a_bare_host_is_accepted_and_one_that_serves_is_refused(lab: Lab) -> None:
    arguments = ("test", "--real", "--inventory", str(INVENTORY), "--hosts", "gpu-01", "--json")
    answer = inv(*arguments)
    assert (answer.code, "nothing was changed" in answer.err) == (2, True), answer
    answer = inv(*arguments, "--yes", timeout=1800)
    rows = answer.document["hosts"]["gpu-01"]
    assert answer.code == 0, answer
    assert {row["what"] for row in rows if row["verdict"] == "skip"} == SKIPPED
    assert sum(row["what"].startswith("broken: ") for row in rows) == 5
    answer = inv(*arguments, "--yes")
    assert answer.code == 2, answer
    assert "a container runs: containerd-shim" in answer.err
    assert "triton@main.service is active" in answer.err
