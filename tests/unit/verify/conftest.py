"""Suites given as text, run against shells of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provision.connection.login import Login
from provision.run.target import Target
from provision.verify.outcome import Check, VerifyResult
from provision.verify.suite import Choice, View, verify
from tests.unit.local_host import LocalHost


@dataclass
class Tried:
    """A suite that ran, and the hosts that it ran against.

    :ivar told: the events of hosts.
    :ivar checks: those of the first host, by name.
    """

    result: VerifyResult
    hosts: list[LocalHost]
    told: list[tuple[str, object]]
    checks: dict[str, Check] = field(init=False)

    def __post_init__(self) -> None:
        self.checks = {check.name: check for check in self.result.hosts[0].checks}

    def verdicts(self) -> dict[str, str]:
        return {name: check.verdict for name, check in self.checks.items()}


Try = Callable[..., Tried]


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Try]:
    """Runs tests given as text, in a file each, against hosts that are this machine."""
    before = set(sys.modules)

    def forget() -> None:
        """pytest keeps modules by name, and the next suite has the same names."""
        for name in set(sys.modules) - before:
            if name.startswith("test_"):
                del sys.modules[name]

    def tried(
        *texts: str,
        names: tuple[str, ...] = ("h1",),
        made: Callable[[LocalHost], None] | None = None,
        **choice: Any,
    ) -> Tried:
        folder = tmp_path / "suite"
        folder.mkdir(exist_ok=True)
        forget()
        for number, text in enumerate(texts):
            (folder / f"test_{number}.py").write_text(f"import time, pytest\nT = {str(tmp_path)!r}\n{text}")
        hosts: list[LocalHost] = []

        def connect(login: Login) -> LocalHost:
            hosts.append(LocalHost(login))
            if made:
                made(hosts[-1])
            return hosts[-1]

        targets = [Target(name, Login(name, "127.0.0.1", 22, "root"), {}) for name in names]
        told: list[tuple[str, object]] = []
        view = View(lambda name, event: told.append((name, event)))
        result = verify(targets, Choice(suites=(folder,), **choice), view=view, connect=connect)
        return Tried(result, hosts, told)

    yield tried
    forget()
