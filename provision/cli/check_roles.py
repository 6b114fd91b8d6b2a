"""The task ``check-roles``: a site's own roles held to the tests of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.cli.arguments import site_roles
from provision.data import data
from provision.errors import UsageError
from provision.role import Role
from provision.roles import all_roles, with_site
from provision.verify.suite import run_pytest

FAILED = 3
"""Exit code if a check fails."""


@dataclass(frozen=True)
class CheckedRole:
    """A role, the settings with which it is checked, and its files: plans, and tests on hosts."""

    role: Role
    example: Mapping[str, Any]
    golden: Path
    verified: Path


class _SiteRoles:
    """Says which roles are checked, and whether their golden files are written anew."""

    def __init__(self, roles: list[CheckedRole], *, update: bool) -> None:
        self.roles, self.update = roles, update

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat every check for each role."""
        if "checked" in metafunc.fixturenames:
            metafunc.parametrize("checked", self.roles, ids=[checked.role.name for checked in self.roles])

    @pytest.fixture
    def update_golden(self) -> bool:
        """Whether golden files are written."""
        return self.update


def check_roles(inventory: str, update_golden: bool) -> int:
    """Check the roles in ``roles`` beside the inventory; print what pytest prints, and return the exit code.

    :param update_golden: write ``roles/NAME/golden.txt`` anew.
    :raises UsageError: if there is no role, or one cannot be loaded.
    """
    folder = site_roles(inventory)
    ours = {role.name for role in all_roles()}
    found = [
        CheckedRole(
            role, role.example, folder / role.name / "golden.txt", folder / role.name / f"test_{role.name}.py"
        )
        for role in with_site(folder)
        if role.name not in ours
    ]
    if not found:
        raise UsageError(f"there is no role in {folder}", hint="see docs/add-a-role.md")
    arguments = ("--noconftest", "--no-header", "-q", "-rf", str(data("role_suite")))
    code = run_pytest(folder, arguments, _SiteRoles(found, update=update_golden))
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise UsageError("the tests of roles could not run", hint="what pytest printed above says why")
    return 0 if code == pytest.ExitCode.OK else FAILED
