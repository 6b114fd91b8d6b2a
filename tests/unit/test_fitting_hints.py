"""Hints that hold for this host: its name, and the roles that it has."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from provision.causes.known_messages import KNOWN_MESSAGES
from provision.causes.roles import fitting
from provision.errors import HostError
from provision.plan.backups import Backups
from provision.roles import all_roles

AGAIN = "provision again: inv provision --hosts {host} --roles toolkit,docker"


@pytest.mark.parametrize(
    ("hint", "roles", "fits"),
    [
        (AGAIN, {"toolkit", "docker"}, AGAIN),
        (
            AGAIN,
            {"docker"},
            f"{{host}} has no role toolkit: give it settings in the inventory; then {AGAIN}",
        ),
        (
            AGAIN,
            set(),
            f"{{host}} has no roles toolkit and docker: give it settings in the inventory; then {AGAIN}",
        ),
        ("reboot the host", set(), "reboot the host"),
        (f"{AGAIN}, then reboot", {"toolkit", "docker"}, f"{AGAIN}, then reboot"),
        ("inv provision --hosts {host}", set(), "inv provision --hosts {host}"),
        (None, set(), None),
    ],
)
def test_a_role_that_the_host_does_not_have_comes_first(
    hint: str | None, roles: set[str], fits: str | None
) -> None:
    assert fitting(hint, roles) == fits


def test_every_known_hint_names_the_host_and_roles_that_there_are() -> None:
    known = {role.name for role in all_roles()}
    for row in KNOWN_MESSAGES:
        assert fitting(row.hint, known) == row.hint
        if "inv provision" in row.hint or "inv plan" in row.hint:
            assert "--hosts {host}" in row.hint
            assert "{host}" not in str(HostError("gpu-01", "x", hint=row.hint).hint)


@pytest.mark.parametrize("host", ["gpu-01", "gpu-01 (jump host b)"])
def test_a_hint_names_its_host(host: str) -> None:
    assert HostError(host, "x", hint="inv plan --hosts {host}").hint == "inv plan --hosts gpu-01"


@pytest.mark.parametrize(("name", "most"), [("newest", 10_000), ("days", 36500)])
def test_how_long_backups_are_kept_has_bounds(name: str, most: int) -> None:
    for value in (1, most):
        assert getattr(Backups(**{name: value}), name) == value
    for value in (0, most + 1):
        with pytest.raises(ValidationError):
            Backups(**{name: value})
