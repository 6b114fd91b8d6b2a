"""The first login on real sshd: Debian 12's and 13's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from provision.bare.bootstrap_resources import SHELL, Sudoers, resources
from provision.run.apply import apply
from provision.shell import constant
from tests.conftest import cases
from tests.lab.first_login import (
    DROP_IN,
    OPS,
    PASSWORD,
    UNLOCK,
    Fleet,
    as_before,
    gets_in,
    hand_over,
    image_user,
    told,
    undo_lock,
)

pytestmark = pytest.mark.lab
bringup = pytest.mark.campaign("bringup")
sample = pytest.mark.campaign("bringup", sample=3)

ROOT = {"user": "root", "password": PASSWORD}
UNLOCK_AFTER = int(constant(SHELL, "unlock_after"))
SUITES = {"Debian 12": 0, "Debian 13": 2}
SECRET_PLACES = "/run/provision /var/lib/provision /var/backups /var/log /home /root /tmp"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take both systems in the campaign, and else one."""
    if "suite" in metafunc.fixturenames:
        metafunc.parametrize("suite", cases(metafunc.config, "bringup", SUITES, 1))


@pytest.fixture
def machine(suite: str, lab: Lab) -> Iterator[LabHost]:
    """A host that root logs in to with a password."""
    host = lab.hosts[SUITES[suite]]
    hand_over(host)
    try:
        yield host
    finally:
        as_before(host)


@pytest.fixture
def debian13(lab: Lab) -> Iterator[LabHost]:
    """The same of the newest sshd only."""
    host = lab.hosts[2]
    hand_over(host)
    try:
        yield host
    finally:
        as_before(host)


@pytest.fixture
def image_key(tmp_path: Path) -> Path:
    """The private key of an image."""
    file = tmp_path / "image"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


@bringup
def test_root_with_a_password(machine: LabHost, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", ROOT)
    assert gets_in(machine, "root", tmp_path, password=PASSWORD)

    asked = fleet.bootstrap_of(machine.name)
    assert (asked.code, "--yes" in asked.err) == (2, True), str(asked)
    planned = fleet.bootstrap_of(machine.name, "--check")
    assert planned.code == 3, str(planned)
    assert told(machine, f"getent passwd {OPS}; ls {DROP_IN}") == ""

    answer = fleet.bootstrap_of(machine.name, "--yes")
    assert answer.code == 0, str(answer)
    changed = [change["resource"] for change in answer.host(machine.name)["changes"]]
    assert changed == [
        "account",
        "authorized-keys",
        "sudoers:/etc/sudoers.d/provision",
        "sshd",
        "handler:reload sshd",
    ]
    assert gets_in(machine, OPS, tmp_path)
    assert not gets_in(machine, "root", tmp_path, password=PASSWORD)
    assert told(machine, f"ls {UNLOCK}*; systemctl is-active provision-unlock.timer") == "inactive"
    assert told(machine, f"grep -rlF -e {PASSWORD[:8]!r} {SECRET_PLACES}") == ""

    again = fleet.bootstrap_of(machine.name, "--yes")
    assert again.code == 0, str(again)
    assert again.host(machine.name)["changes"] == []
    assert again.host(machine.name)["connects"] == 1


@sample
def test_the_account_of_an_image_with_its_key(machine: LabHost, tmp_path: Path, image_key: Path) -> None:
    hand_over(machine, image_user(image_key.with_suffix(".pub").read_text().strip()))
    fleet = Fleet(tmp_path / "fleet", {"user": "ubuntu", "key": str(image_key), "lock_root": False})
    answer = fleet.bootstrap_of(machine.name, "--yes")
    assert answer.code == 0, str(answer)
    assert gets_in(machine, OPS, tmp_path)
    assert gets_in(machine, "ubuntu", tmp_path, key=image_key)
    assert not gets_in(machine, "root", tmp_path, password=PASSWORD)
    assert "PermitRootLogin" not in told(machine, f"cat {DROP_IN}")


@sample
def test_sudo_with_a_password_before_and_after(debian13: LabHost, tmp_path: Path) -> None:
    hand_over(debian13, image_user("", password=PASSWORD))
    fleet = Fleet(tmp_path / "fleet", {"user": "ubuntu", "password": PASSWORD})
    fleet.changed[debian13.name] = {"ansible_become_password": "s3cond pass"}
    answer = fleet.bootstrap_of(debian13.name, "--yes")
    assert answer.code == 0, str(answer)
    assert "s3cond" not in answer.out + answer.err
    assert not gets_in(debian13, OPS, tmp_path), "sudo asks for the password"
    assert told(debian13, "cat /etc/sudoers.d/provision").endswith(f"{OPS} ALL=(ALL:ALL) ALL")
    for user in ("a", "_x", "a.b-c_d", "a" * 32):
        (rule,) = (
            r
            for r in resources(user, (), None, lock_passwords=True, lock_root=True)
            if isinstance(r, Sudoers)
        )
        assert debian13.run(["visudo", "-cf", "-"], given=rule.content.decode()).returncode == 0
    assert fleet.bootstrap_of(debian13.name, "--check").code == 0


@sample
def test_a_wrong_password_is_tried_once(machine: LabHost, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", {"password": "wrong"})
    answer = fleet.bootstrap_of(machine.name, "--yes")
    assert answer.code == 1, str(answer)
    error = answer.host(machine.name)["error"]
    assert "cannot log in as ops: refused" in error["message"]
    assert "cannot log in as root: refused: the password" in error["message"]
    tried = told(
        machine, "journalctl -t sshd -t sshd-session -t sshd-auth -b --since -20s | grep -c 'Failed password'"
    )
    assert tried == "1"
    assert told(machine, f"getent passwd {OPS}; ls {DROP_IN}") == ""


@sample
def test_a_changed_host_key_gets_no_password(debian13: LabHost, tmp_path: Path, image_key: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", ROOT)
    fleet.changed[debian13.name] = {"host_key": image_key.with_suffix(".pub").read_text()}
    answer = fleet.bootstrap_of(debian13.name, "--yes")
    assert answer.code == 1, str(answer)
    assert "HAS CHANGED" in answer.host(debian13.name)["error"]["message"]
    assert told(debian13, f"getent passwd {OPS}") == ""


@sample
def test_an_expired_password(machine: LabHost, tmp_path: Path) -> None:
    hand_over(machine, image_user("", password=PASSWORD, expired=True))
    fleet = Fleet(tmp_path / "fleet", {"user": "ubuntu", "password": PASSWORD})
    answer = fleet.bootstrap_of(machine.name, "--yes")
    assert answer.code == 1, str(answer)
    error = answer.host(machine.name)["error"]
    assert error["message"].startswith("the password of ubuntu has expired")
    assert "bootstrap.new_password" in error["hint"]

    fleet.bootstrap = {**fleet.bootstrap, "new_password": "An0ther-one/altogether"}
    planned = fleet.bootstrap_of(machine.name, "--check")
    assert planned.code == 3, str(planned)
    assert planned.host(machine.name)["changes"][0]["resource"] == "password:ubuntu"
    assert told(machine, f"getent passwd {OPS}") == ""
    answer = fleet.bootstrap_of(machine.name, "--yes")
    assert answer.code == 0, str(answer)
    assert "An0ther" not in answer.out + answer.err
    assert gets_in(machine, OPS, tmp_path)
    assert fleet.bootstrap_of(machine.name, "--yes").host(machine.name)["changes"] == []


@sample
def test_a_cut_after_any_step_leaves_a_way_in(machine: LabHost, tmp_path: Path) -> None:
    """What each step changes is made alone, as if the host or the controller had lost its power then."""
    fleet = Fleet(tmp_path / "fleet", ROOT)
    run = fleet.run_of(machine.name)
    run.make_survey(lambda *_: None)
    assert run.survey is not None
    plan = run.survey.plan
    ways = []
    for index, change in enumerate(plan.changes):
        if change.resource == "sshd":  # as of here everything goes over the account's own connection
            run._prove_account()
        apply(run.connection, replace(plan, changes=(change,)), f"cut-{index}", lambda _: None)
        ways.append((gets_in(machine, "root", tmp_path, password=PASSWORD), gets_in(machine, OPS, tmp_path)))
    run.connection.close()
    assert ways == [(True, False), (True, False), (True, True), (True, True), (False, True)]

    # Nobody has proven the last step: the next run does, or the host takes it back.
    undo_lock(machine)
    assert gets_in(machine, "root", tmp_path, password=PASSWORD)
    assert told(machine, f"ls {DROP_IN} {UNLOCK}") == ""
    answer = fleet.bootstrap_of(machine.name, "--yes")
    assert answer.code == 0, str(answer)
    assert [change["resource"] for change in answer.host(machine.name)["changes"]] == [
        "sshd",
        "handler:reload sshd",
    ]
    assert not gets_in(machine, "root", tmp_path, password=PASSWORD)


@sample
def test_the_next_run_proves_what_a_cut_run_has_locked(debian13: LabHost, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", ROOT)
    run = fleet.run_of(debian13.name)
    run._prove_lock = lambda: None  # type: ignore[method-assign]  # the controller loses its power here
    run.make_survey(lambda *_: None)
    run.apply("cut", lambda *_: None)
    run.connection.close()
    assert told(debian13, "systemctl is-active provision-unlock.timer") == "active"
    answer = fleet.bootstrap_of(debian13.name, "--yes")
    assert answer.code == 0, str(answer)
    assert told(debian13, f"systemctl is-active provision-unlock.timer; ls {UNLOCK}") == "inactive"
    assert not gets_in(debian13, "root", tmp_path, password=PASSWORD)


@sample
def test_an_sshd_that_then_refuses_the_account_is_unlocked(debian13: LabHost, tmp_path: Path) -> None:
    """Somebody changed sshd_config and sshd has not read it yet: our reload does."""
    hand_over(debian13)
    told(debian13, "sed -i '1i AllowUsers root' /etc/ssh/sshd_config")
    answer = Fleet(tmp_path / "fleet", ROOT).bootstrap_of(debian13.name, "--yes")
    assert answer.code == 1, str(answer)
    assert "the lock was taken back" in answer.host(debian13.name)["error"]["message"]
    assert told(debian13, f"ls {DROP_IN} {UNLOCK}") == ""
    assert gets_in(debian13, "root", tmp_path, password=PASSWORD)


@sample
def test_an_account_that_does_not_work_locks_nothing(debian13: LabHost, tmp_path: Path) -> None:
    hand_over(debian13, "sed -i '1i AllowUsers root' /etc/ssh/sshd_config\n")
    answer = Fleet(tmp_path / "fleet", ROOT).bootstrap_of(debian13.name, "--yes")
    assert answer.code == 1, str(answer)
    error = answer.host(debian13.name)["error"]
    assert error["message"].startswith("the account is there and does not work, so nothing was locked")
    assert told(debian13, f"ls {DROP_IN}") == ""
    assert gets_in(debian13, "root", tmp_path, password=PASSWORD)


@pytest.mark.campaign("bringup", only=True)
def test_the_host_unlocks_itself_in_time(machine: LabHost, tmp_path: Path) -> None:
    run = Fleet(tmp_path / "fleet", ROOT).run_of(machine.name)
    run._prove_lock = lambda: None  # type: ignore[method-assign]  # the controller loses its power here
    run.make_survey(lambda *_: None)
    run.apply("cut", lambda *_: None)
    run.connection.close()
    assert not gets_in(machine, "root", tmp_path, password=PASSWORD)
    time.sleep(UNLOCK_AFTER + 5)
    assert gets_in(machine, "root", tmp_path, password=PASSWORD)
    assert gets_in(machine, OPS, tmp_path)
