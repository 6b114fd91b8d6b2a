"""What the command line's arguments become: a fleet with permissions, saved plans, names of runs."""

from __future__ import annotations

import re
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from provision.cli.arguments import open_fleet, reachable, run_id, save_plans, saved_plans, write_below
from provision.cli.options import Options
from provision.errors import InventoryError, UsageError
from provision.plan.plan import Plan
from provision.resource import Change, RenderedFile
from provision.run.fleet import Rollout

HOST = """
all:
  hosts:
    gpu-01:
      host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F
      docker: {}
    gpu-02:
"""
PLANS = {"gpu-01": Plan("gpu-01", (Change("r", "a", "s", "secret", "d"),), granted=("reboot",))}


@pytest.mark.parametrize("before", [None, 0o644])
def test_a_saved_plan_is_read_back_and_for_its_owner_only(tmp_path: Path, before: int | None) -> None:
    path = tmp_path / "plan"
    if before is not None:
        path.write_text("longer than a plan " * 1000)
        path.chmod(before)
    save_plans(str(path), PLANS)
    assert oct(path.stat().st_mode & 0o7777) == "0o600"
    assert saved_plans(str(path)) == PLANS


def test_without_a_path_there_is_no_saved_plan() -> None:
    assert saved_plans("") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file or directory"), (b"\xff", "it is not UTF-8"), (b"{}", "not a sav")],
)
def test_a_file_that_is_no_saved_plan_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "plan"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"^{path}: {says}") as caught:
        saved_plans(str(path))
    assert caught.value.hint == "make one with: inv plan --out FILE"


def test_a_plan_that_cannot_be_saved_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}/none/plan: No such file or directory"):
        save_plans(str(tmp_path / "none/plan"), PLANS)


def test_an_older_plan_stays_where_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full."""
    path = tmp_path / "plan"
    save_plans(str(path), PLANS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(UsageError, match=f"^{path}: File too large") as caught:
            save_plans(str(path), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.hint == "name another file: --out FILE"
    assert saved_plans(str(path)) == PLANS
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_a_plan_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    save_plans(str(tmp_path / "link"), PLANS)
    assert (tmp_path / "link").is_symlink()
    assert saved_plans(str(tmp_path / "real")) == PLANS
    with pytest.raises(UsageError, match="not a regular file"):
        save_plans("/dev/null", PLANS)


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
