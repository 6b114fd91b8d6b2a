"""Instances that Docker's restart starts again are waited for before one of them gives way: pure shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.roles.triton.server import SERVE
from provision.shell import assembled

OLD, NEW = "triton@old.service", "triton@new.service"


def unit(name: str, active: str, sub: str = "", job: int = 0) -> str:
    """What ``systemctl show`` prints of one."""
    return "\n".join(
        [f"Id={name}", f"ActiveState={active}", f"SubState={sub}", *([f"Job={job}"] if job else [])]
    )


def waits(shown: list[str], containers: str) -> int:
    """How often a start of the new instance looks again.

    :param containers: those that run from the third look on.
    """
    text = "\n\n".join(shown)
    script = f"""{assembled(SERVE)}
looks=0
systemctl() {{ printf '%s\\n' '{text}'; }}
instances() {{ echo '{NEW} 8000'; [ ! -e third ] || printf '%s' '{containers}'; }}
sleep() {{ looks=$((looks + 1)); [ "$looks" != 2 ] || : >third; }}
await_containers {NEW}
echo "$looks"
"""
    return int(subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "state",
    [("activating", "start-pre"), ("activating", "start"), ("inactive", "dead", 7), ("failed", "", 8)],
)
def test_one_on_its_way_is_waited_for(state: tuple[str, str, int]) -> None:
    assert waits([unit(NEW, "activating", "start"), unit(OLD, *state)], f"{OLD} 8000\n") == 2


@pytest.mark.parametrize(
    "state",
    [("active", "running"), ("inactive", "dead"), ("failed", "failed"), ("activating", "auto-restart")],
)
def test_one_that_is_not_is_not(state: tuple[str, str]) -> None:
    assert waits([unit(OLD, *state)], "") == 0


def test_one_that_waits_at_a_gate_is_not_waited_for_without_end() -> None:
    assert waits([unit(OLD, "activating", "start-pre")], "") == 15


def test_no_instances() -> None:
    assert waits([], "") == 0
