"""The command line with two hosts, a real sshd and one that takes connections and never says a word."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshd import SSHD, Sshd, sshd

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason="no sshd here")

ROLE = """
from provision.resources.file import File
from provision.role import Role, Settings

ROLE = Role("note", Settings, lambda settings, facts: [File("/etc/no-such-folder/note", b"x")], example={})
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with sshd() as running:
        yield running


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


def inventory(folder: Path, server: Sshd, silent: socket.socket, timeout: int) -> Path:
    """A fleet of both; the silent one may take ``timeout`` seconds."""
    (folder / "roles/note").mkdir(parents=True)
    (folder / "roles/note/role.py").write_text(ROLE)
    common = {
        "ansible_host": "127.0.0.1",
        "ansible_user": server.user,
        "ansible_ssh_private_key_file": str(server.key),
        "host_key": server.host_key,
        "note": {},
    }
    hosts = {
        "late": {"ansible_port": silent.getsockname()[1], "ansible_ssh_timeout": timeout},
        "quick": {"ansible_port": server.port},
    }
    path = folder / "hosts.yml"
    path.write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
    return path


def begin(inventory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "tasks.py", *arguments, "--hosts", "all", "--inventory", str(inventory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("arguments", [("plan",), ("provision", "--check")])
def test_a_plan_is_printed_before_a_late_host_has_answered(
    arguments: tuple[str, ...], tmp_path: Path, server: Sshd, silent: socket.socket
) -> None:
    with begin(inventory(tmp_path, server, silent, 60), *arguments) as program:
        connection, _ = silent.accept()
        assert program.stdout is not None
        with connection:
            printed = program.stdout.readline()
            silent.close()
        rest, said = program.communicate(timeout=30)
    assert printed == "quick: 1 change\n", said
    assert program.returncode == 1
    assert "late: unreachable: " in rest


def test_an_interrupt_does_not_wait_for_a_late_host(
    tmp_path: Path, server: Sshd, silent: socket.socket
) -> None:
    with begin(inventory(tmp_path, server, silent, 60), "plan") as program:
        connection, _ = silent.accept()
        with connection:
            assert program.stdout is not None
            program.stdout.readline()
            began = time.monotonic()
            program.send_signal(signal.SIGINT)
            _, said = program.communicate(timeout=70)
    assert time.monotonic() - began < 10
    assert program.returncode == 130
    assert said == "interrupted\n"


def test_the_document_of_a_late_host_is_whole(tmp_path: Path, server: Sshd, silent: socket.socket) -> None:
    with begin(inventory(tmp_path, server, silent, 2), "plan", "--json") as program:
        written, said = program.communicate(timeout=60)
    found = json.loads(written)
    assert {name: host["status"] for name, host in found["hosts"].items()} == {
        "late": "unreachable",
        "quick": "changed",
    }, said
