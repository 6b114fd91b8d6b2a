"""What the command line's arguments become: a fleet with permissions, names of runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from provision.cli.arguments import open_fleet, reachable, run_id, write_below
from provision.cli.options import Options
from provision.connection.known_hosts import HostKey
from provision.errors import InventoryError, UsageError
from provision.plan.saved import Approval, ApprovedChange, SavedPlans
from provision.resource import RenderedFile
from provision.run.fleet import Rollout

HOST = """
all:
  hosts:
    gpu-01:
      host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F
      docker: {}
    gpu-02:
"""


def approval(*roles: str) -> Approval:
    """One change for each role."""
    changes = tuple(ApprovedChange(role, f"file:{role}", "update", f"write {role}", "d") for role in roles)
    return Approval(changes, dict.fromkeys(roles, "d"))


APPROVED = SavedPlans("k", {"gpu-01": approval("docker"), "gpu-03": Approval((), {"docker": "d"})})


def test_a_saved_plan_names_the_hosts_and_roles_where_the_options_do_not(tmp_path: Path) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(HOST.replace("docker: {}", "docker: {}\n      toolkit: {}"))
    found = reachable(Options(inventory=str(source)), approved=APPROVED)
    assert [(t.name, [role.name for role in t.settings]) for t in found] == [("gpu-01", ["docker"])]


@pytest.mark.parametrize(
    ("options", "text", "says"),
    [
        (Options(roles="toolkit"), HOST, "gpu-01: approved, and no part of this run: write docker"),
        (Options(), "all: {hosts: {other: {}}}", "gpu-01: approved, and no part of this run: write docker"),
        (Options(hosts="gpu-02"), HOST, "gpu-02: no plan of it was approved"),
        (Options(hosts="gpu-02"), HOST, "gpu-01: approved, and no part of this run: write docker"),
        (Options(), HOST.replace("docker", "x"), "gpu-01: approved, and no part of this run: write docker"),
    ],
)
def test_another_run_than_the_approved_one_is_refused_before_any_connection(
    tmp_path: Path, options: Options, text: str, says: str
) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(text)
    with pytest.raises(UsageError) as caught:
        reachable(replace(options, inventory=str(source)), approved=APPROVED)
    first, *lines = caught.value.message.splitlines()
    assert first == "this run is not what was approved"
    assert f"  {says}" in lines
    assert caught.value.hint == "plan again: inv plan --hosts PATTERN --out FILE"


def test_hosts_that_the_pattern_leaves_out_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(HOST)
    both = SavedPlans("k", {name: approval("docker") for name in ("gpu-01", "gpu-02")})
    found = reachable(Options(hosts="gpu-01", inventory=str(source)), approved=both)
    assert [target.name for target in found] == ["gpu-01"]
    assert capsys.readouterr().err == "approved, and left out by --hosts: gpu-02\n"


def test_enrolment_leaves_out_a_host_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(
        HOST.replace("gpu-02:", "gpu-02: {ansible_host: 127.0.0.1, ansible_port: 1, docker: {}}")
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    options = Options(hosts="all", inventory=str(source), enroll=True)
    assert [target.name for target in reachable(options)] == ["gpu-01", "gpu-02"]
    assert "gpu-02: 127.0.0.1 port 1 cannot be connected to" in capsys.readouterr().err
    with pytest.raises(InventoryError, match="the SSH host key of gpu-02 is not known"):
        reachable(replace(options, enroll=False))


@pytest.mark.parametrize("mark", ["@revoked gpu-01", "gpu-01 {key}\n@revoked *"])
def test_a_revoked_key_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"
    source, known = tmp_path / "hosts.yml", tmp_path / ".ssh/known_hosts"
    source.write_text("all: {hosts: {gpu-01: {docker: {}}}}\n")
    known.parent.mkdir()
    known.write_text(f"# of the site\n{mark.format(key=key)} {key}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InventoryError) as caught:
        reachable(Options(hosts="all", inventory=str(source)))
    line = len(known.read_text().splitlines())
    shown = f"ssh-ed25519 {HostKey.of(key).fingerprint} ({known}:{line})"
    assert str(caught.value) == f"{source}:1: the SSH host key of gpu-01 is revoked: {shown}"
    assert "--enroll" in (caught.value.hint or "")


def test_rendered_files_are_for_their_owner_only(tmp_path: Path) -> None:
    write_below(tmp_path, RenderedFile("/etc/triton/main.env", b"TOKEN=x\n", "0600"))
    file = tmp_path / "etc/triton/main.env"
    assert (file.read_bytes(), oct(file.stat().st_mode & 0o7777)) == (b"TOKEN=x\n", "0o600")


@pytest.mark.parametrize(
    ("options", "granted"),
    [
        (Options(), ()),
        (Options(reboot=True), ("reboot",)),
        (Options(allow_branch_change=True), ("branch-change",)),
        (Options(reboot=True, allow_branch_change=True), ("branch-change", "reboot")),
    ],
)
def test_a_fleet_has_the_permissions_of_the_command_line(
    tmp_path: Path, options: Options, granted: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hosts.yml"
    source.write_text(HOST)
    with open_fleet(replace(options, hosts="all", inventory=str(source)), Rollout()) as (fleet, progress):
        assert [(target.name, target.granted) for target in fleet.targets] == [("gpu-01", granted)]
        assert list(progress.names) == ["gpu-01"]
    assert "left out, because they have none of these roles: gpu-02" in capsys.readouterr().err


def test_names_of_runs_are_sorted_by_time_and_never_the_same() -> None:
    names = {run_id() for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", name) for name in names)
