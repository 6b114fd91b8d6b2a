"""Files and folders of the user's that cannot be read: a sentence with the name, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.bare.seed_folder import KEY as SEED_KEY
from provision.bare.seed_folder import key_of
from provision.cli.terminal import error_boundary
from provision.connection.host_key_check import expected_keys
from provision.connection.identities import public_key
from provision.connection.login import Login
from provision.data import MOST, at_home, base_folder, content
from provision.errors import UnreachableError, UsageError

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"
LONG = "x" * 300
"""No file can be called so."""

CASES = {
    "plan --out": ("plan ON --out locked/plan", "locked/plan: Permission denied"),
    "plan --out below": ("plan ON --out locked/a/plan", "locked/a/plan: Permission denied"),
    "a long name": (f"plan ON --out {LONG}", f"{LONG}: File name too long"),
    "verify --junit": ("verify ON --junit locked/a/x.xml", "locked/a/x.xml: Permission denied"),
    "verify --tests": ("verify ON --tests locked/a", "--tests: locked/a: Permission denied"),
    "inventory": ("inventory --inventory locked/hosts.yml", "hosts.yml: cannot be read: Permission denied"),
    "group_vars": ("inventory --inventory vars", "group_vars/all.yml: cannot be read: Permission denied"),
    "roles": ("plan --inventory site/hosts.yml --hosts all", "site/roles: Permission denied"),
    "ssh_config": ("facts ON", ".ssh/config: cannot be read: Is a directory"),
    "manifests": ("lint-manifest locked", "locked: Permission denied"),
    "a plan without end": ("provision --inventory hosts.yml --plan /dev/zero", "zero: not a regular file"),
    "a plan that waits": ("provision --inventory hosts.yml --plan fifo", "fifo: not a regular file"),
    "an inventory that waits": ("inventory --inventory fifo", "fifo: cannot be read: not a regular file"),
    "a folder that waits": ("inventory --inventory waits", "all.yml: cannot be read: not a regular file"),
    "manifests that wait": ("lint-manifest fifo", "fifo: not a regular file"),
    "tests that wait": ("verify ON --tests fifo", "--tests: fifo: not a regular file"),
    "a report that waits": ("verify ON --junit fifo", "fifo: not a regular file"),
    "a console that waits": ("bare.enroll ON --from-console fifo", "fifo: not a regular file"),
    "a terminal": ("lint-manifest /dev/ptmx", "/dev/ptmx: not a regular file"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    hosts = f"all: {{hosts: {{gpu-01: {{host_key: {KEY}, docker: {{}}}}}}}}\n"
    for name in ("hosts.yml", "locked/hosts.yml", "vars/hosts.yml", "site/hosts.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(hosts)
    (tmp_path / "waits").mkdir()
    (tmp_path / "waits/hosts.yml").write_text(hosts)
    for name in ("fifo", "waits/group_vars/all.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
    for name in ("vars/group_vars", "site/roles", "home/.ssh/config"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "vars/group_vars/all.yml").write_text("a: 1\n")
    modes = {"locked": 0, "vars/group_vars": 0o600, "site/roles": 0}
    for name, mode in modes.items():
        (tmp_path / name).chmod(mode)
    yield tmp_path
    for name in modes:
        (tmp_path / name).chmod(0o700)


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_read_is_named(folder: Path, name: str) -> None:
    arguments, expected = CASES[name]
    arguments = arguments.replace("ON", "--inventory hosts.yml --hosts all")
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*without, sys.executable, str(ROOT / "tasks.py"), *arguments.split()],
        check=False,
        cwd=folder,
        env={**os.environ, "HOME": str(folder / "home" if name == "ssh_config" else folder)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    error, hint, *_ = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, ""), done
    assert error.startswith("error: ")
    assert error.endswith(expected)
    assert hint.startswith("hint: ")


def test_output_that_has_no_such_character_is_escaped(folder: Path) -> None:
    (folder / "hosts.yml").write_text("all: {hosts: {gpu-01: {site: Zürich}}}\n", "utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tasks.py"), "inventory", "--inventory", "hosts.yml", "--host", "gpu-01"],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert r"site: Z\xfcrich" in done.stdout


def test_any_other_file_is_named_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), error_boundary():
        (tmp_path / "missing").read_text()
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/missing: No such file or directory\nhint: ")
    with pytest.raises(OSError, match="no file of the user's"), error_boundary():
        raise OSError("no file of the user's")


def test_a_file_is_read_to_its_end_or_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x\xff")
    assert content(tmp_path / "file") == b"x\xff"
    with (tmp_path / "large").open("wb") as large:
        large.truncate(MOST + 1)
    with pytest.raises(OSError, match="too large"):
        content(tmp_path / "large")


def test_what_the_shell_opens_is_read(folder: Path) -> None:
    for source in ("<(cat hosts.yml)", "/dev/stdin < <(cat hosts.yml)", "/dev/stdin < hosts.yml"):
        command = f"{sys.executable} {ROOT}/tasks.py inventory --graph --inventory {source}"
        done = subprocess.run(
            ["bash", "-c", command], check=False, cwd=folder, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "gpu-01" in done.stdout
    assert content(Path(os.devnull)) == b""


def test_a_key_that_waits_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    login = Login("h", "192.0.2.1", key_files=(str(tmp_path / "key"),))
    with pytest.raises(UnreachableError, match=r"the private key .*/key cannot be read: not a regular file"):
        public_key(login)
    (tmp_path / "key").unlink()
    os.mkfifo(tmp_path / "key.pub")
    with pytest.raises(UnreachableError, match=r"the private key .*/key does not exist"):
        public_key(login)


def test_known_hosts_that_wait_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "known")
    with pytest.raises(UnreachableError, match=f"{tmp_path}/known: not a regular file"):
        expected_keys(Login("h", "192.0.2.1", known_hosts=(str(tmp_path / "known"),)))


def test_a_key_of_a_seed_that_waits_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SEED_KEY)
    with pytest.raises(UsageError, match=f"{SEED_KEY}: not a regular file"):
        key_of(tmp_path)


def test_a_home_that_is_not_there_leaves_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    assert at_home("~/x") == Path("/home/a/x")
    assert at_home("~no-such-user/x") == Path("~no-such-user/x")


@pytest.mark.parametrize(
    ("given", "folder"), [("", "/home/a/x"), ("state", "/home/a/x"), ("/srv/y", "/srv/y")]
)
def test_a_relative_folder_of_xdg_is_ignored(
    given: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("XDG_STATE_HOME", given)
    assert base_folder("XDG_STATE_HOME", "~/x") == Path(folder)
    monkeypatch.delenv("XDG_STATE_HOME")
    assert base_folder("XDG_STATE_HOME", "~/x") == Path("/home/a/x")
