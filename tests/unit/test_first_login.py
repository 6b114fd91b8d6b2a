"""The first login: what a machine gets, in which order, and who is tried how often."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.bare import bootstrap_resources as made
from provision.bare.bootstrap_resources import Account, AccountState, AuthorizedKeys, SshdLock, SshdState
from provision.bare.bootstrap_settings import Bootstrap
from provision.bare.first_login import RETRIES, FirstLogin, Newcomer, newcomers
from provision.connection import Connection, ExpiredPasswordError
from provision.connection.execution import EXPIRED, Execution
from provision.connection.expired_password import CURRENT, NEW
from provision.connection.login import Login
from provision.errors import HostError, InventoryError, LoginRefusedError, Refusal, UnreachableError
from provision.inventory import Host
from provision.plan.result import Result
from provision.probe import Output
from provision.resource import ABSENT, Change, Planned
from provision.shell import assembled
from tests.unit.fake_host import OF_RUNS, FakeHost, Thing

PASSWORD = "f1rst '\"pass $x"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherKey0therKey0therKey0therKey0therKey0"
NOTHING_PLANNED = Planned()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A private key."""
    file = tmp_path / "id"
    paramiko.ECDSAKey.generate().write_private_key_file(str(file))
    file.chmod(0o600)
    return file


def newcomer(key_file: Path, bootstrap: dict[str, Any] | None = None, asked: str | None = None) -> Newcomer:
    """The newcomer ``h`` whose account is ``ops``."""
    host = Host("h", vars={"bootstrap": bootstrap} if bootstrap is not None else {})
    login = Login("h", "192.0.2.1", user="ops", key_files=(str(key_file),))
    (found,) = newcomers([host], [login], asked)
    return found


# --- settings and logins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bootstrap", "asked", "ways"),
    [
        ({}, None, [("root", None, "own")]),
        ({"user": "ubuntu"}, None, [("ubuntu", None, "own")]),
        ({"user": "ubuntu", "key": "/k"}, None, [("ubuntu", None, "/k")]),
        ({"password": "p"}, None, [("root", "p", "")]),
        ({"password": "p"}, "asked", [("root", "p", "")]),
        ({}, "asked", [("root", "asked", "")]),
        ({"user": "ubuntu", "key": "/k", "password": "p"}, None, [("ubuntu", "p", "/k")]),
        ({"password": "p", "new_password": "n"}, None, [("root", "p", ""), ("root", "n", "")]),
        ({"user": "ops", "password": "p"}, None, [("ops", "p", "")]),
        ({"user": "ops"}, None, []),
    ],
)
def test_the_logins_that_may_work(
    key_file: Path, bootstrap: dict[str, Any], asked: str | None, ways: list[tuple[str, str | None, str]]
) -> None:
    found = newcomer(key_file, bootstrap, asked)
    assert (found.login.user, found.login.password, found.login.needs_sudo) == ("ops", None, True)
    keys = {"own": (str(key_file),), "/k": ("/k",), "": ()}
    assert [(way.user, way.password, way.key_files) for way in found.ways] == [
        (user, password, keys[key]) for user, password, key in ways
    ]
    assert all(way.become_password == way.password for way in found.ways)
    assert "PRIVATE" not in repr(found)
    assert all(secret not in repr(found) for secret in ("'p'", "'n'", "asked"))


@pytest.mark.parametrize(
    ("bootstrap", "said"),
    [
        ({"pasword": "hunter2"}, "unknown setting 'pasword'"),
        ({"user": "Root!"}, "bootstrap.user"),
        ({"authorized_keys": ['command="x" ssh-rsa AAAA']}, "bootstrap.authorized_keys"),
        ({"authorized_keys": ["ssh-rsa AAAA\nssh-rsa BBBB"]}, "bootstrap.authorized_keys"),
        ({"password": ""}, "bootstrap.password"),
        ({"password": 5}, "bootstrap.password"),
        ({"password": "hunter2\nx"}, "bootstrap.password: the password is not one line"),
        ({"password": "hunter2\0"}, "bootstrap.password: the password is not one line"),
        (
            {"password": "a", "new_password": "hunter2\n"},
            "bootstrap.new_password: the password is not one line",
        ),
        ({"password": "hunter2", "new_password": "hunter2"}, "bootstrap.new_password: new_password must be"),
        ({"key": "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n"}, "bootstrap.key"),
        ({"authorized_keys": [f"{KEY[:60]}"]}, "is not a whole public key"),
    ],
)
def test_settings_that_are_refused(key_file: Path, bootstrap: dict[str, Any], said: str) -> None:
    with pytest.raises(InventoryError, match=said) as refused:
        newcomer(key_file, bootstrap)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("user", ["Ops", "ops user", "ops,ALL", "%ops", "-ops", "1"])
def test_accounts_that_would_be_something_else_in_sudoers(key_file: Path, user: str) -> None:
    login = Login("h", "192.0.2.1", user=user, key_files=(str(key_file),))
    with pytest.raises(InventoryError, match="cannot be the name of an account"):
        newcomers([Host("h")], [login], None)


def test_an_account_without_a_key_is_refused() -> None:
    with pytest.raises(InventoryError, match="no key is named for ops") as refused:
        newcomers([Host("h")], [Login("h", "192.0.2.1", user="ops")], None)
    assert "ansible_ssh_private_key_file" in str(refused.value.hint)


def test_a_misspelt_name_is_refused(key_file: Path) -> None:
    host = Host("h", vars={"bootstrp": {"user": "ubuntu"}})
    with pytest.raises(InventoryError, match="did you mean bootstrap"):
        newcomers([host], [Login("h", "192.0.2.1", user="ops", key_files=(str(key_file),))], None)


def test_every_setting_says_what_it_means() -> None:
    assert set(Bootstrap.meanings()) == set(Bootstrap.model_fields)


def test_nobody_to_ask_for_the_password(key_file: Path, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        f"all: {{hosts: {{h: {{ansible_user: ops, host_key: {KEY},"
        f" ansible_ssh_private_key_file: {key_file}, bootstrap: {{password: hunter2}}}}}}}}"
    )
    argv = [
        sys.executable,
        "-m",
        "provision",
        "bare.bootstrap",
        "--hosts",
        "h",
        "--inventory",
        str(inventory),
    ]
    for option in ("-k", "--ask-pass"):
        ran = subprocess.run(
            [*argv, option], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 2
        assert "--ask-pass: nobody can be asked here" in ran.stderr
    argv[3:4] = ["inventory", "--json"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert '"password": "(hidden)"' in shown
    assert "hunter2" not in shown


# --- resources ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "state", "said"),
    [
        (Account("ops"), ABSENT, "account ops: it does not exist"),
        (Account("ops"), AccountState("/bin/bash", has_password=False), None),
        (Account("ops"), AccountState("/usr/sbin/nologin", has_password=True), "account ops: its shell is"),
        (Account("ops", PASSWORD), AccountState("/bin/sh", has_password=True), None),
        (Account("ops", PASSWORD), AccountState("/bin/sh", has_password=False), "with the password for sudo"),
        (Account("ops", PASSWORD), ABSENT, "with the password for sudo"),
    ],
)
def test_accounts(account: Account, state: Any, said: str | None) -> None:
    change = account.change(state, NOTHING_PLANNED)
    if said is None:
        assert change is None
        return
    assert change is not None
    assert said in f"{change.summary}: {change.reason}"
    shown = (change.summary, change.reason, change.diff, change.done, repr(account))
    assert not any(PASSWORD in text for text in shown)
    assert PASSWORD not in change.script, "it would be in the arguments of a program"


def test_an_account_of_the_system_is_not_taken() -> None:
    system = Account("backup").read(
        Output(0, b"backup:x:34:34:backup:/var/backups:/usr/sbin/nologin\nnone\n")
    )
    with pytest.raises(Refusal, match="backup is an account of the system: its uid is 34") as refused:
        Account("backup").change(system, NOTHING_PLANNED)
    assert "ansible_user" in str(refused.value.hint)
    own = AccountState("/bin/bash", has_password=False, uid=200)
    assert Account("ops").change(own, NOTHING_PLANNED) is None


def test_what_the_host_says_of_an_account() -> None:
    line = b"ops:x:1000:1000::/home/ops:/bin/bash\n"
    assert Account("ops").read(Output(0, line + b"set\n")) == AccountState("/bin/bash", has_password=True)
    assert Account("ops").read(Output(0, line + b"none\n")) == AccountState("/bin/bash", has_password=False)
    assert Account("ops").read(Output(0)) is ABSENT


FORCED = f'no-pty,command="echo use ubuntu" {KEY} forced\n'


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ("", False),
        (f"{KEY}\n", True),
        (f"{KEY} somebody\n", True),
        (f"{OTHER}\n{KEY}\n", True),
        (f"{OTHER}\n", False),
        (f"# {KEY}\n", False),
        (FORCED, False),
        (f"{FORCED}{KEY}\n", False),
        (f"{KEY}\n{FORCED}", True),
        (f"{KEY}A\n", False),
    ],
)
def test_keys_count_where_sshd_takes_them_without_limits(content: str, right: bool) -> None:
    """In Python for the plan, and in sh for the proof of the step."""
    change = AuthorizedKeys("ops", (f"{KEY} provision",)).change(content, NOTHING_PLANNED)
    assert (change is None) == right
    assert shell_takes(content, KEY) == right


def shell_takes(content: str, *keys: str) -> bool:
    """What the shell's function says of an authorized_keys with this content."""
    script = f'{assembled(made.SHELL)}authorized_keys_of() {{ cat; }}\ntakes_keys ops "$@"\n'
    return (
        subprocess.run(["sh", "-c", script, "sh", *keys], input=content, text=True, check=False).returncode
        == 0
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from([KEY, OTHER, f"# {KEY}", FORCED.strip(), "", "ssh-rsa AAAA x"])))
def test_keys_that_are_there_stay_and_ours_then_count(lines: list[str]) -> None:
    before = "".join(f"{line}\n" for line in lines)
    resource = AuthorizedKeys("ops", (f"{KEY} provision", OTHER))
    change = resource.change(before, NOTHING_PLANNED)
    if change is not None:
        added = [key for key in resource.keys if key in change.script]
        after = "".join(f"{key}\n" for key in added) + before
        assert resource.change(after, NOTHING_PLANNED) is None


def lock_of(user: str) -> SshdLock:
    """The lock of a machine whose account this is."""
    declared = made.resources(user, (KEY,), None, lock_passwords=True, lock_root=True)
    (found,) = (item for item in declared if isinstance(item, SshdLock))
    return found


OPEN = {
    (user, option): value
    for user in ("ops", "root")
    for option, value in (
        ("passwordauthentication", "yes"),
        ("kbdinteractiveauthentication", "no"),
        ("permitrootlogin", "yes"),
    )
}
LOCK = lock_of("ops")
LOCKED = dict.fromkeys(OPEN, "no")
NO_LOCK = replace(LOCK, options=())


@pytest.mark.parametrize(
    ("lock", "state", "reason"),
    [
        (LOCK, SshdState(OPEN), "passwordauthentication is yes for ops"),
        (LOCK, SshdState(LOCKED, LOCK.content), None),
        (LOCK, SshdState(LOCKED), "it does not exist"),
        (LOCK, SshdState(LOCKED, "# by hand\n"), "its content differs"),
        (LOCK, SshdState(LOCKED, LOCK.content, unproven=True), "an earlier run ended before"),
        (LOCK, LOCK.bare(), "it does not exist"),
        (NO_LOCK, SshdState(OPEN), None),
        (NO_LOCK, SshdState(OPEN, LOCK.content), "its content differs"),
        (NO_LOCK, NO_LOCK.bare(), None),
    ],
)
def test_the_lock(lock: SshdLock, state: SshdState, reason: str | None) -> None:
    change = lock.change(state, NOTHING_PLANNED)
    assert (change.reason if change else None) == reason or (change and reason and reason in change.reason)


def test_a_lock_that_sshd_does_not_follow_is_refused() -> None:
    with pytest.raises(Refusal, match="passwordauthentication is yes for ops") as refused:
        LOCK.change(SshdState(OPEN, LOCK.content), NOTHING_PLANNED)
    assert "Include" in str(refused.value.hint)


def test_root_as_the_account_keeps_its_key() -> None:
    lock = lock_of("root")
    assert "PermitRootLogin prohibit-password" in lock.content
    assert "permitrootlogin without-password" in lock.lines


def test_what_sshd_says_is_read() -> None:
    told = b"ops passwordauthentication no\nroot permitrootlogin no\nunproven\n\n# Written\nX y\n"
    state = LOCK.read(Output(0, told))
    assert state.values == {("ops", "passwordauthentication"): "no", ("root", "permitrootlogin"): "no"}
    assert (state.drop_in, state.unproven) == ("# Written\nX y\n", True)
    with pytest.raises(ValueError, match="sshd -T"):
        LOCK.read(Output(0, b"\n", b"sshd: not found"))


# --- the order ------------------------------------------------------------------------------------


class Machine:
    """A machine, who may log in to it, and what was done through which login."""

    def __init__(self, *needs: str, refuses: dict[str, HostError] | None = None) -> None:
        self.host = FakeHost(dict.fromkeys(needs, "update"))
        self.refuses = refuses or {}
        self.log: list[str] = []
        self.when: Callable[[str, str], None] = lambda _user, _what: None

    def run_of(self, target: Newcomer) -> FirstLogin:
        return FirstLogin(
            target,
            Way(target.login, self),
            clock=self.host.clock,
            sleep=self.host.clock.sleep,
            connect=lambda login: Way(login, self),
        )


class Way(Connection):
    """A connection to a machine, as one of its users."""

    def __init__(self, login: Login, machine: Machine) -> None:
        super().__init__(login)
        self.machine = machine
        self.host = machine.host

    def open(self) -> None:
        self.connects += 1

    def close(self) -> None:
        self.host.close()

    def change_expired_password(self, new: str) -> None:
        self.machine.log.append(f"{self.login.user}: {self.login.password} becomes {new}")
        del self.machine.refuses[self.login.user]

    def run(self, script: str, **options: Any) -> Output:
        self.execs += 1
        last = script.strip().rpartition("\n")[2]
        what = (
            last
            if last in ("true", "keep_lock", "undo_lock")
            else "apply"
            if script.startswith(OF_RUNS)
            else "ask"
        )
        self.machine.log.append(f"{self.login.user}: {what}")
        self.machine.when(self.login.user, what)
        if error := self.machine.refuses.get(self.login.user):
            raise error
        return Output(0) if what in ("true", "keep_lock", "undo_lock") else self.host.run(script, **options)


def refused(user: str) -> LoginRefusedError:
    return LoginRefusedError("h", f"cannot log in as {user}: refused: the password")


TARGET = Newcomer(
    "h",
    Login("h", "192.0.2.1", user="ops"),
    {},
    ways=(Login("h", "192.0.2.1", user="root", password="old"),),
    resources=(Thing("account"), Thing("sshd")),
)


def carried_out(run: FirstLogin) -> Result:
    run.make_survey(lambda *_: None)
    return run.apply("r", lambda *_: None)


def test_the_account_is_proven_before_the_lock_and_after_it() -> None:
    machine = Machine("account", "sshd", refuses={"ops": refused("ops")})

    def when(user: str, what: str) -> None:
        if (user, what) == ("root", "apply"):
            machine.refuses = {}

    machine.when = when
    result = carried_out(machine.run_of(TARGET))
    assert (result.status, [change.resource for change in result.changes]) == ("changed", ["account", "sshd"])
    assert machine.log == [
        "ops: true", "root: true", "root: ask", "root: apply",
        "ops: true", "ops: apply", "ops: keep_lock", "ops: ask",
    ]  # fmt: skip
    assert result.execs == 8


def test_a_machine_that_has_its_account_is_asked_through_it_alone() -> None:
    machine = Machine()
    assert carried_out(machine.run_of(TARGET)).status == "ok"
    assert machine.log == ["ops: true", "ops: ask"]


def test_nothing_is_locked_without_proof() -> None:
    machine = Machine("account", "sshd", refuses={"ops": refused("ops")})
    result = carried_out(machine.run_of(TARGET))
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.message.startswith("the account is there and does not work, so nothing was locked")
    assert machine.host.wants == {"account": "", "sshd": "update"}


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(refused("ops"), 1), (UnreachableError("h", "port 22 cannot be connected to"), len(RETRIES) + 1)],
)
def test_a_lock_that_locks_out_is_taken_back(error: HostError, attempts: int) -> None:
    machine = Machine("sshd")

    def when(user: str, what: str) -> None:
        machine.refuses = {"ops": error} if what == "keep_lock" else {}

    machine.when = when
    result = carried_out(machine.run_of(TARGET))
    assert result.error is not None
    assert "the lock was taken back" in result.error.message
    assert machine.log.count("ops: keep_lock") == attempts
    assert machine.log[-1] == "ops: undo_lock"


def test_a_lock_whose_step_fails_is_taken_back() -> None:
    machine = Machine("sshd")
    machine.host.incidents.fails["sshd"] = ("1", "sshd died")
    result = carried_out(machine.run_of(TARGET))
    assert result.status == "failed"
    assert machine.log[-1] == "ops: undo_lock"


def test_no_credential_is_tried_twice_and_no_other_after_a_wrong_host_key() -> None:
    machine = Machine(refuses={"ops": refused("ops"), "root": refused("root")})
    with pytest.raises(LoginRefusedError, match=r"as ops: .*; cannot log in as root") as failed:
        machine.run_of(TARGET).make_survey(lambda *_: None)
    assert "PerSourcePenalties" in str(failed.value.hint)
    assert machine.log == ["ops: true", "root: true"]

    machine = Machine(refuses={"ops": UnreachableError("h", "THE HOST KEY HAS CHANGED")})
    with pytest.raises(UnreachableError, match="HAS CHANGED"):
        machine.run_of(TARGET).make_survey(lambda *_: None)
    assert machine.log == ["ops: true"]


def test_sudo_that_refuses_is_what_is_said() -> None:
    sudo = HostError("h", "sudo rejected the password of root", hint="is it right?")
    machine = Machine(refuses={"ops": refused("ops"), "root": sudo})
    with pytest.raises(HostError, match=r"cannot log in as ops.*; sudo rejected the password") as failed:
        machine.run_of(TARGET).make_survey(lambda *_: None)
    assert not isinstance(failed.value, UnreachableError)
    assert failed.value.hint == "is it right?"


# --- expired passwords ----------------------------------------------------------------------------


def expired() -> Machine:
    error = ExpiredPasswordError("h", "the password of root has expired")
    return Machine("account", "sshd", refuses={"ops": refused("ops"), "root": error})


def test_an_expired_password_is_named_and_left_alone_without_a_new_one() -> None:
    machine = expired()
    with pytest.raises(ExpiredPasswordError, match="has expired"):
        machine.run_of(TARGET).make_survey(lambda *_: None)
    assert machine.log == ["ops: true", "root: true"]


def test_an_expired_password_is_changed_after_the_yes_and_not_before() -> None:
    machine = expired()
    run = machine.run_of(replace(TARGET, new_password="new"))
    run.make_survey(lambda *_: None)
    assert run.survey is not None
    plan = run.survey.plan
    assert [change.resource for change in plan.changes] == ["password:root", "account", "sshd"]
    assert "new" not in "".join(change.summary for change in plan.changes).replace("new_password", "")
    assert machine.log == ["ops: true", "root: true"]

    def when(user: str, what: str) -> None:
        if (user, what) == ("root", "apply"):
            machine.refuses = {}

    machine.when = when
    result = run.apply("r", lambda *_: None)
    assert result.status == "changed", result.error
    assert machine.log[2] == "root: old becomes new"
    assert [change.resource for change in result.changes] == ["password:root", "account", "sshd"]


def test_what_an_expired_password_hid_is_not_done_unasked() -> None:
    machine = expired()
    target = replace(
        TARGET, new_password="new", resources=(replace(Thing("account"), breaks=None), Thing("x"))
    )
    run = machine.run_of(target)
    run.make_survey(lambda *_: None)
    assert run.survey is not None
    run.survey = replace(run.survey, plan=replace(run.survey.plan, changes=run.survey.plan.changes[:1]))
    result = run.apply("r", lambda *_: None)
    assert result.error is not None
    assert "more than was approved" in result.error.message
    assert machine.host.wants["account"] == "update"


def test_sshd_that_wants_another_password_first_is_understood() -> None:
    execution = Execution(Login("h", "192.0.2.1", user="ubuntu"), 5, "a script", None)
    execution.stderr.feed(b"WARNING: Your password has expired.\n" + EXPIRED + b".\n")
    error = execution._not_started("the host did not start the command")
    assert isinstance(error, ExpiredPasswordError)
    assert "the password of ubuntu has expired" in error.message


@pytest.mark.parametrize(
    ("prompt", "current", "new"),
    [
        (b"Current password: ", True, False),
        (b"(current) UNIX password: ", True, False),
        (b"Changing password for ubuntu.\r\nCurrent password: ", True, False),
        (b"New password: ", False, True),
        (b"\r\nNew password:", False, True),
        (b"Enter new UNIX password: ", False, True),
        (b"Retype new password: ", False, True),
        (b"You must choose a longer password.\r\nNew password: ", False, True),
        (b"Current password: \r\n", False, False),
        (b"Your new password: is bad\r\n", False, False),
        (b"Neues Passwort: ", False, False),
    ],
)
def test_prompts_of_passwd(prompt: bytes, current: bool, new: bool) -> None:
    assert (bool(CURRENT.search(prompt)), bool(NEW.search(prompt))) == (current, new)


def test_only_what_takes_away_a_way_in_waits_for_the_proof() -> None:
    declared = made.resources("ops", (KEY,), None, lock_passwords=True, lock_root=True)
    changes = [Change(item.id, "create", "", "", "") for item in declared]
    locks = [made.is_lock(change) for change in changes]
    assert locks == [False, False, False, True, True]
    assert not any(a and not b for a, b in itertools.pairwise(locks))
