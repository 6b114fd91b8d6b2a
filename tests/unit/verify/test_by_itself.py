"""Verify judges by itself: none of its checks knows what the planner makes of a host."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from provision.plan import declared, plan
from provision.resource import Resource
from tests.unit.verify import test_driver_checks, test_toolkit_checks, test_triton_checks
from tests.unit.verify.healthy_triton import settings
from tests.unit.verify.played_host import look, verdicts

ROOT = Path(__file__).parents[3]
FILES = [
    *sorted((ROOT / "tests/verify").glob("*.py")),
    *sorted((ROOT / "provision/roles").glob("*/testinfra.py")),
]
PLANNERS = ("provision.plan", "provision.run", "provision.cli")
"""Rooms of what decides about changes and makes them."""
WORDS = {"Planned", "Change", "declare", "Declared", "Plan"}
CALLS = {"change", "refine", "notes", "states", "bare"}
"""What a resource says to the planner."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_check_imports_or_calls_the_planner(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith(PLANNERS), ast.unparse(node)
            assert not {alias.name for alias in node.names} & WORDS, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CALLS, ast.unparse(node)


def kinds(kind: type[Any] = Resource) -> Iterator[type[Any]]:
    """Every kind of resource that is loaded."""
    for below in kind.__subclasses__():
        yield below
        yield from kinds(below)


@pytest.fixture
def no_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that cannot be asked anything."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("a check asked the planner")

    for kind in kinds():
        for name in CALLS & vars(kind).keys():
            monkeypatch.setattr(kind, name, refused)
    monkeypatch.setattr(plan, "plan", refused)
    monkeypatch.setattr(declared, "declare", refused)


def test_verdicts_are_the_same_without_a_planner(no_planner: None) -> None:
    healthy, _ = look(test_triton_checks.HEALTHY, settings())
    assert healthy.status == "ok", [c for c in healthy.checks if c.verdict == "fail"]
    assert len(verdicts(healthy, "pass")) > 30
    stopped = test_triton_checks.HEALTHY.with_(test_triton_checks.stopped())
    broken, _ = look(stopped, settings())
    assert list(verdicts(broken, "fail")) == ["triton llm: unit is active"]


def test_the_driver_and_the_toolkit_are_judged_without_a_planner(no_planner: None) -> None:
    for module in (test_driver_checks, test_toolkit_checks):
        assert module.checked(module.HEALTHY).status == "ok"
