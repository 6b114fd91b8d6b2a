"""Connections to a real sshd on loopback: what runs, what arrives, and what is said when it does not."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
import pytest

from provision.connection import (
    Connection,
    DeadlineError,
    UnfinishedError,
    execution,
    ssh_config,
)
from provision.connection.enrolment import record
from provision.connection.login import Login
from provision.connection.session import fetch_host_key
from provision.errors import HostError, ProbeError, UnreachableError
from provision.probe import Output, Probe
from provision.run.gather import Answers, gather, gather_both
from tests.sshd import PASSWORD, SSHD, Sshd, sshd, system_user

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason="openssh-server is not installed")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to make users")
needs_sudo = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("sudo") is None, reason="needs root and sudo to make users that may sudo"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(system_user("prov-plain")) if os.getuid() == 0 else None
        yield stack.enter_context(sshd(user=user))


@pytest.fixture(scope="module")
def connection(server: Sshd) -> Iterator[Connection]:
    with Connection(server.login()) as connection:
        yield connection


# --- what runs


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("echo out; echo err >&2; exit 3", Output(3, b"out\n", b"err\n")),
        ("", Output(0)),
        ("printf 'no newline'", Output(0, b"no newline")),
        (r"printf '\377\000\376'", Output(0, b"\xff\0\xfe")),
        ("cat; echo done", Output(0, b"done\n")),
        ("read -r line; echo \"<$line>\"; head -c 5", Output(0, b"<>\n")),
        ("pwd; umask; echo $LC_ALL; echo $PATH", Output(
            0, b"/\n0022\nC.UTF-8\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")),
        ("echo \"$#${script-}${LANGUAGE-}${ENV-}\"", Output(0, b"0\n")),
        ("cat <<'EOF'\n'\"$x`\\\nEOF", Output(0, b"'\"$x`\\\n")),
        ("echo a # comment", Output(0, b"a\n")),
        ("echo a \\", Output(0, b"a\n")),
        ("sh -c 'kill -9 $$'; echo $?", Output(0, b"137\n")),
        ("echo 'grüße'", Output(0, "grüße\n".encode())),
        ("sh -c 'cat' && echo after", Output(0, b"after\n")),
    ],
)  # fmt: skip
def test_scripts(connection: Connection, script: str, output: Output) -> None:
    found = connection.run(script, timeout=10)
    assert Output(found.exit_code, found.stdout, found.stderr.replace(b"Killed\n", b"")) == output


def test_a_script_of_two_megabytes_is_not_eaten_by_its_own_programs(connection: Connection) -> None:
    script = "cat\n" + "".join(f"x='{number:>40}'\n" for number in range(50_000)) + "cat; echo $x"
    assert len(script) > 2_000_000
    assert connection.run(script, timeout=30) == Output(0, b"49999\n")


def test_stdin_is_the_scripts_own(connection: Connection) -> None:
    data = bytes(range(256)) * 4000
    assert connection.run("cat; exit 4", timeout=30, stdin=data) == Output(4, data)
    assert connection.run("head -c 3", timeout=30, stdin=data).stdout == data[:3]


def test_a_shell_that_was_killed_is_no_exit_code(connection: Connection) -> None:
    with pytest.raises(UnfinishedError, match="a patch: killed on the host after 0 s") as caught:
        connection.run("echo begun; kill -9 $$", timeout=10, what="a patch")
    assert caught.value.partial.stdout == b"begun\n"


def test_large_output_on_both_streams(connection: Connection) -> None:
    output = connection.run("head -c 6000000 /dev/zero; head -c 2000000 /dev/zero >&2", timeout=60)
    assert (len(output.stdout), len(output.stderr)) == (6_000_000, 2_000_000)


def test_nul_in_a_script_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="NUL"):
        connection.run("echo \0", timeout=1)


def test_lines_are_followed_as_they_come(connection: Connection) -> None:
    seen: list[tuple[bytes, float]] = []
    script = "echo one; sleep 0.6; echo two; printf '\\nrest'"
    output = connection.run(script, timeout=10, on_line=lambda line: seen.append((line, time.monotonic())))
    assert [line for line, _ in seen] == [b"one", b"two", b"", b"rest"]
    assert seen[1][1] - seen[0][1] > 0.4
    assert output == Output(0), "lines that were passed on are not kept"


def test_an_error_in_on_line_reaches_the_caller(connection: Connection) -> None:
    def fail(line: bytes) -> None:
        raise RuntimeError(line.decode())

    with pytest.raises(RuntimeError, match="one"):
        connection.run("echo one; sleep 5", timeout=10, on_line=fail)
    assert connection.run("echo still", timeout=5).stdout == b"still\n"


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provision.connection.execution.QUIET", 0.3)
    started = time.monotonic()
    assert connection.run("sleep 8 & echo started", timeout=30) == Output(0, b"started\n")
    assert time.monotonic() - started < 4


def test_everything_is_counted(server: Sshd) -> None:
    with Connection(server.login()) as connection:
        connection.open()
        for _ in range(3):
            connection.run("echo 12345", timeout=5)
    assert (connection.connects, connection.execs) == (1, 3)
    assert not connection.is_open


def test_a_command_opens_the_session_and_reopens_a_closed_one(server: Sshd) -> None:
    connection = Connection(server.login())
    assert connection.run("echo 1", timeout=5).stdout == b"1\n"
    connection.close()
    assert connection.run("echo 2", timeout=5).stdout == b"2\n"
    connection.close()
    assert connection.connects == 2


# --- time


def test_a_script_that_is_too_slow_is_ended_on_the_host(connection: Connection, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    marker = f"{4711 + os.getpid()}.25"
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"a long look did not end within 1 s") as caught:
        connection.run(f"echo partly; sleep {marker}", timeout=1, what="a long look")
    assert time.monotonic() - started < 4
    assert caught.value.partial.stdout == b"partly\n"
    time.sleep(0.3)
    assert subprocess.run(["pgrep", "-f", marker], check=False, capture_output=True).stdout == b""


def test_the_exit_code_124_of_a_script_is_its_own(connection: Connection) -> None:
    assert connection.run("exit 124", timeout=30).exit_code == 124


@pytest.mark.parametrize(
    "stuck",
    [
        Probe("stuck", "sleep 30"),
        Probe("stuck", "trap '' TERM; sleep 3"),
        Probe("stuck", "sleep 30", in_place=True),
    ],
    ids=["alone", "stubborn", "in place"],
)
def test_a_hanging_probe_is_named(server: Sshd, stuck: Probe) -> None:
    probes = [Probe("quick", "echo 1"), stuck, Probe("later", "echo 2")]
    with Connection(server.login()) as connection:
        with pytest.raises(ProbeError, match="probe stuck did not end within 1 s"):
            gather(connection, probes, timeout=1)
        assert connection.execs == 1


@pytest.mark.parametrize("where", [0, 1])
def test_a_probe_that_hangs_in_a_conversation_is_named(server: Sshd, where: int) -> None:
    sets = [[Probe("quick", "echo 1")], [Probe("fast", "echo 2")]]
    sets[where].append(Probe("stuck", "sleep 30"))
    with Connection(server.login()) as connection:
        with pytest.raises(ProbeError, match="probe stuck did not end within 1 s"):
            gather_both(connection, sets[0], lambda _: (None, sets[1]), timeout=1)
        assert connection.execs == 1


def test_a_conversation_costs_one_exec(server: Sshd) -> None:
    first = [Probe("a", "printf 'x\\0y'; echo oh >&2; exit 3"), Probe("b", "cat; pwd", in_place=True)]
    seen = []

    def then(answers: Answers) -> tuple[str, list[Probe]]:
        seen.append(answers)
        return "made", [Probe("c", f": {'x' * 3_000_000}; cat; echo {answers['a'].exit_code}; exit 4")]

    with Connection(server.login()) as connection:
        made, answers = gather_both(connection, first, then)
        assert gather_both(connection, first, lambda _: (None, [])) == (None, {})
    assert (connection.connects, connection.execs) == (1, 2)
    assert seen == [{"a": Output(3, b"x\0y", b"oh\n"), "b": Output(0, b"/\n")}]
    assert (made, answers) == ("made", {"c": Output(4, b"3\n")})


@pytest.mark.parametrize("script", ["exit 0", "if (", "exec 2>&-"])
def test_a_conversation_that_ends_after_its_first_part_is_an_error(server: Sshd, script: str) -> None:
    first = [Probe("fine", "echo 1"), Probe("leaver", script, in_place=True)]
    with Connection(server.login()) as connection, pytest.raises(ProbeError, match="probe leaver"):
        gather_both(connection, first, lambda _: (None, [Probe("later", "true")]), timeout=2)


def test_a_conversation_without_second_probes_that_is_cut_is_an_error(server: Sshd) -> None:
    killer = Probe("killer", "(sleep 0.5; kill -9 $$) >/dev/null 2>&1 & :", in_place=True)

    def then(_: Answers) -> tuple[None, list[Probe]]:
        time.sleep(1)
        return None, []

    with Connection(server.login()) as connection, pytest.raises(ProbeError, match="killed on the host"):
        gather_both(connection, [killer], then)


def test_an_error_between_the_parts_of_a_conversation_reaches_the_caller(connection: Connection) -> None:
    def then(output: Output) -> str:
        raise RuntimeError(output.out)

    with pytest.raises(RuntimeError, match="one"):
        connection.run("echo one", timeout=10, then=then)
    assert connection.run("echo still", timeout=5).stdout == b"still\n"


def test_gathering_costs_one_exec(server: Sshd) -> None:
    probes = [Probe(str(index), f"echo {index}; exit {index}") for index in range(60)]
    with Connection(server.login()) as connection:
        answers = gather(connection, probes)
        assert gather(connection, []) == {}
    assert (connection.connects, connection.execs) == (1, 1)
    assert answers["59"] == Output(59, b"59\n")
    assert [output.exit_code for output in answers.values()] == list(range(60))


def test_a_probe_that_kills_the_script_is_an_error(server: Sshd) -> None:
    probes = [Probe("fine", "true"), Probe("killer", "kill -9 $$; sleep 1"), Probe("later", "true")]
    with (
        Connection(server.login()) as connection,
        pytest.raises(ProbeError, match=r"3 probes: killed on the host after \d+ s, in probe killer"),
    ):
        gather(connection, probes)


# --- noise


NOISY = "echo 'Welcome to the cluster'; printf 'no newline'; echo warning >&2; export LC_ALL=de_DE.UTF-8\n"


@needs_root
@pytest.mark.parametrize(
    ("bashrc", "shell"),
    [
        (NOISY, "/bin/bash"),
        (NOISY + "set -x\n", "/bin/bash"),
        (NOISY + "alias exec=false env=false; cd /tmp; umask 077; trap 'echo bye' EXIT\n", "/bin/bash"),
        ("sleep 1\n", "/bin/bash"),
        ("", "/bin/dash"),
    ],
)
def test_rc_files_do_not_get_into_the_answer(bashrc: str, shell: str) -> None:
    with (
        system_user("prov-noisy", bashrc=bashrc, shell=shell) as user,
        sshd(user=user) as server,
        Connection(server.login()) as connection,
    ):
        output = connection.run("pwd; umask; echo $LC_ALL; echo oops >&2; exit 5", timeout=10)
    assert output == Output(5, b"/\n0022\nC.UTF-8\n", b"oops\n")


@needs_root
@pytest.mark.parametrize(
    ("bashrc", "shell", "message"),
    [
        ("echo 'go away'; exit 0\n", "/bin/bash", "did not start the command"),
        ("", "/usr/sbin/nologin", "This account is currently not available"),
        ("exec cat >/dev/null\n", "/bin/bash", "did not start the command"),
        ("sleep 60\n", "/bin/bash", "the host did not start the command within 2 s"),
    ],
)
def test_a_shell_that_runs_nothing(bashrc: str, shell: str, message: str) -> None:
    with (
        system_user("prov-noisy", bashrc=bashrc, shell=shell) as user,
        sshd(user=user) as server,
        Connection(server.login()) as connection,
        pytest.raises(HostError, match=message) as caught,
    ):
        connection.run("echo hi", timeout=2)
    assert caught.value.hint


# --- sudo


@needs_sudo
@pytest.mark.parametrize("password", [None, PASSWORD])
@pytest.mark.parametrize("rule", ["ALL=(ALL) NOPASSWD: ALL", "ALL=(ALL) ALL"])
@pytest.mark.parametrize("defaults", ["", "use_pty", "log_output", "timestamp_timeout=0"])
def test_sudo(rule: str, password: str | None, defaults: str) -> None:
    sudoers = rule + (f"\nDefaults:prov-sudo {defaults}" if defaults else "")
    with system_user("prov-sudo", sudoers=sudoers, bashrc=NOISY) as user, sshd(user=user) as server:
        login = server.login(become=True, become_password=password)
        with Connection(login) as connection:
            if password is None and "NOPASSWD" not in rule:
                with pytest.raises(HostError, match="sudo requires a password for prov-sudo") as caught:
                    connection.run("id -u", timeout=10)
                assert "ansible_become_password" in str(caught.value.hint)
                return
            for _ in range(2):
                output = connection.run("id -u; echo $HOME; cat; echo err >&2; exit 6", timeout=10)
                assert output == Output(6, b"0\n/root\n", b"err\n")
            both = connection.run(
                f"id -u; : '{'x' * 100_000}'", timeout=10, then=lambda one: f"echo {one.out}"
            )
            assert both == Output(0, b"0\n")
            big = "x" * 3_000_000
            assert connection.run(f": '{big}'; wc -c", timeout=20, stdin=b"12").stdout.strip() == b"2"
    assert connection.execs == 4


@needs_sudo
def test_a_shell_that_echoes_what_it_reads_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PATIENCE", 2.0)
    with (
        system_user("prov-sudo", sudoers="ALL=(ALL) ALL", bashrc="exec /bin/cat\n") as user,
        sshd(user=user) as server,
        Connection(server.login(become=True, become_password=PASSWORD)) as connection,
        pytest.raises(HostError, match="sudo did not start the command") as caught,
    ):
        connection.run("id -u", timeout=20)
    assert PASSWORD not in f"{caught.value}{caught.value.hint}"


@needs_sudo
def test_sudo_to_another_user_and_with_a_limit_of_one_attempt() -> None:
    with system_user("prov-sudo", sudoers="ALL=(ALL) ALL") as user, sshd(user=user) as server:
        login = server.login(become=True, become_user="nobody", become_password=PASSWORD)
        with Connection(login) as connection:
            assert connection.run("id -un", timeout=10).stdout == b"nobody\n"


@needs_sudo
def test_a_wrong_password_is_tried_once_and_said() -> None:
    with system_user("prov-sudo", sudoers="ALL=(ALL) ALL") as user, sshd(user=user) as server:
        login = server.login(become=True, become_password="wr\"ong $pass'")
        with Connection(login) as connection:
            started = time.monotonic()
            with pytest.raises(HostError, match="sudo rejected the password of prov-sudo") as caught:
                connection.run("id -u", timeout=60)
            assert time.monotonic() - started < 10
    assert "ansible_become_password" in str(caught.value.hint)
    assert "wr" not in str(caught.value).replace("wrong", "")


@needs_sudo
@pytest.mark.parametrize(
    ("sudoers", "changes", "message"),
    [
        ("", {"become_password": PASSWORD}, "may not use sudo"),
        ("", {}, "sudo requires a password|may not use sudo"),
        ("ALL=(ALL) NOPASSWD: /bin/true", {}, "sudo requires a password|may not use sudo"),
        ("ALL=(ALL) NOPASSWD: ALL\nDefaults:prov-sudo requiretty", {}, "requiretty"),
        ("ALL=(ALL) NOPASSWD: ALL\nDefaults:prov-sudo requiretty", {"become_password": "x"}, "requiretty"),
        ("ALL=(ALL) NOPASSWD: ALL", {"become_user": "no-such-user"}, "does not know the user"),
    ],
)
def test_sudo_that_refuses(sudoers: str, changes: dict[str, object], message: str) -> None:
    with (
        system_user("prov-sudo", sudoers=sudoers) as user,
        sshd(user=user) as server,
        Connection(server.login(become=True, **changes)) as connection,
        pytest.raises(HostError, match=message) as caught,
    ):
        started = time.monotonic()
        connection.run("id -u", timeout=60)
    assert caught.value.hint
    assert time.monotonic() - started < 10


@needs_sudo
def test_the_password_is_in_no_argument_list_and_no_log() -> None:
    with system_user("prov-sudo", sudoers="ALL=(ALL) ALL") as user, sshd(user=user) as server:
        with Connection(server.login(become=True, become_password=PASSWORD)) as connection:
            seen = connection.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null", timeout=20)
        assert PASSWORD.encode() not in seen.stdout
        assert PASSWORD not in server.log


# --- host keys


def unreachable(login: Login) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught, Connection(login):
        pass
    assert not str(caught.value).endswith(".")
    return caught.value


def known_hosts(
    server: Sshd, tmp_path: Path, *, hashed: bool = False, name: str | None = None, port: bool = True
) -> str:
    file = tmp_path / "known_hosts"
    name = name or (f"[127.0.0.1]:{server.port}" if port else "127.0.0.1")
    file.write_text(f"{name} {server.host_key}\n")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    return str(file)


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("port", [False, True])
def test_host_keys_from_known_hosts(server: Sshd, tmp_path: Path, hashed: bool, port: bool) -> None:
    file = known_hosts(server, tmp_path, hashed=hashed, port=port)
    with Connection(server.login(host_key=(), known_hosts=("/nonexistent", file))) as connection:
        assert connection.run("echo in", timeout=5).ok


def test_host_key_alias(server: Sshd, tmp_path: Path) -> None:
    file = known_hosts(server, tmp_path, name="gold")
    with Connection(server.login(host_key=(), known_hosts=(file,), host_key_alias="gold")) as connection:
        assert connection.is_open
    assert "not known" in str(
        unreachable(server.login(host_key=(), known_hosts=(file,), host_key_alias="tin"))
    )


def test_the_key_type_that_we_know_is_asked_for(server: Sshd) -> None:
    ecdsa = " ".join((server.folder / "host_ecdsa.pub").read_text().split()[:2])
    with Connection(server.login(host_key=(ecdsa,))) as connection:
        assert connection.is_open


def test_an_unknown_host_key_is_refused_with_its_fingerprint(server: Sshd) -> None:
    error = unreachable(server.login(host_key=(), known_hosts=()))
    assert "is not known: ssh-ed25519 SHA256:" in str(error)
    assert "--enroll" in str(error.hint)


def test_a_changed_host_key_is_loud(server: Sshd, tmp_path: Path) -> None:
    other = (server.folder / "client.pub").read_text().split()
    file = tmp_path / "known_hosts"
    file.write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    for login in (
        server.login(host_key=(), known_hosts=(str(file),)),
        server.login(host_key=(" ".join(other[:2]),)),
    ):
        assert "HAS CHANGED" in str(unreachable(login))
    with Connection(server.login(host_key=(server.host_key, " ".join(other[:2])))) as connection:
        assert connection.is_open


def test_a_revoked_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    file = known_hosts(server, tmp_path)
    Path(file).write_text(Path(file).read_text() + f"@revoked * {server.host_key}\n")
    for host_key in ((), (server.host_key,)):
        error = unreachable(server.login(host_key=host_key, known_hosts=(file,)))
        assert f"the host key of [127.0.0.1]:{server.port} is revoked: ssh-ed25519 SHA256:" in str(error)
        assert "give the host a new key" in str(error.hint)


@pytest.mark.parametrize("mac", ["hmac-md5", "hmac-md5-96", "hmac-sha1", "hmac-sha1-96"])
def test_checksums_that_are_broken_are_not_offered(mac: str) -> None:
    with sshd("Ciphers aes128-ctr", f"MACs {mac}") as old:
        assert "no algorithm in common" in str(unreachable(old.login()))
    with (
        sshd("Ciphers aes128-ctr", f"MACs {mac},hmac-sha2-256") as new,
        Connection(new.login()) as connection,
    ):
        assert connection.is_open


def test_enrolling_makes_a_host_known(server: Sshd, tmp_path: Path) -> None:
    key = fetch_host_key(server.login(host_key=(), key_files=("/nonexistent",)))
    printed = subprocess.run(
        ["ssh-keygen", "-lf", str(server.folder / "host_ed25519.pub")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert key.kind == "ssh-ed25519"
    assert key.fingerprint in printed.stdout
    login = server.login(host_key=(), known_hosts=(str(tmp_path / "known_hosts"),))
    assert "not known" in str(unreachable(login))
    record([(login, key)])
    with Connection(login) as connection:
        assert connection.is_open


# --- logging in


def test_a_key_that_is_not_authorized(server: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    error = unreachable(server.login(key_files=(str(key),)))
    assert f"cannot log in as {server.user}: refused: key {key}" in str(error)
    assert "authorized_keys" in str(error.hint)
    rejected = re.findall(r"Failed publickey", server.log)
    assert len(rejected) <= 1


def test_a_key_that_cannot_be_looked_for_is_called_so(server: Sshd) -> None:
    """As in a folder that one may not enter, which root may."""
    error = unreachable(server.login(key_files=(f"/{'x' * 300}",)))
    assert "cannot be read: file name too long" in error.message


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda key: key.unlink(), "does not exist"),
        (lambda key: key.chmod(0o644), r"can be read by others \(mode 0644\)"),
        (lambda key: key.write_text("nonsense"), "is not a private key"),
        (lambda key: key.write_text(""), "is not a private key"),
        (lambda key: (key.unlink(), key.mkdir(mode=0o700)), "cannot be read: is a directory"),
        (
            lambda key: subprocess.run(["ssh-keygen", "-qp", "-N", "secret", "-f", str(key)], check=True),
            "is encrypted, and no ssh-agent holds it",
        ),
    ],
)  # fmt: skip
def test_key_files_that_cannot_be_used(
    server: Sshd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], object],
    message: str,
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = tmp_path / "key"
    shutil.copy(server.key, key)
    key.chmod(0o600)
    prepare(key)
    error = unreachable(server.login(key_files=(str(key),)))
    assert re.search(message, str(error))
    assert error.hint


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    for _ in range(50):
        if path.exists():
            break
        time.sleep(0.05)
    yield path
    process.terminate()
    process.wait(5)


def test_the_agents_copy_of_an_encrypted_key_is_offered(server: Sshd, tmp_path: Path, agent: Path) -> None:
    assert agent.exists()
    key = tmp_path / "key"
    shutil.copy(server.key, key)
    shutil.copy(server.key.with_suffix(".pub"), tmp_path / "key.pub")
    key.chmod(0o600)
    subprocess.run(["ssh-add", "-q", str(key)], check=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True, capture_output=True
    )
    for files in ((str(key),), (str(tmp_path / "key.pub"),), ()):
        with Connection(server.login(key_files=files)) as connection:
            assert connection.is_open


@needs_root
def test_a_login_password() -> None:
    with (
        system_user("prov-pass") as user,
        sshd("PasswordAuthentication yes", "UsePAM yes", user=user) as server,
    ):
        with Connection(server.login(key_files=(), password=PASSWORD)) as connection:
            assert connection.run("id -un", timeout=5).stdout == b"prov-pass\n"
        error = unreachable(server.login(key_files=(), password="wrong"))
        assert "refused: the password" in str(error)


def test_a_host_that_takes_no_passwords_says_so() -> None:
    with sshd("PasswordAuthentication no", "KbdInteractiveAuthentication no") as server:
        error = unreachable(server.login(key_files=(), password=PASSWORD))
        assert "refused: the password (the host takes no passwords: publickey only)" in str(error)
    with sshd("PasswordAuthentication yes", "KbdInteractiveAuthentication no") as server:
        assert str(unreachable(server.login(key_files=(), password="wrong"))).endswith(
            "refused: the password"
        )


@needs_root
def test_a_key_and_a_password_together() -> None:
    options = ("PasswordAuthentication yes", "UsePAM yes", "AuthenticationMethods publickey,password")
    with (
        system_user("prov-pass") as user,
        sshd(*options, user=user) as server,
        Connection(server.login(password=PASSWORD)) as connection,
    ):
        assert connection.is_open


# --- the way there


@contextlib.contextmanager
def listener(handle: Callable[[socket.socket], None] | None) -> Iterator[int]:
    """Listen on loopback; ``handle`` gets each connection in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = sock.accept()
                    threading.Thread(
                        target=handle or time.sleep, args=(peer if handle else 0,), daemon=True
                    ).start()
                    peers.append(peer)

        peers: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield sock.getsockname()[1]
        sock.shutdown(socket.SHUT_RDWR)
        for peer in peers:
            peer.close()


def test_nobody_listens(server: Sshd) -> None:
    error = unreachable(server.login(port=1))
    assert "127.0.0.1 port 1 cannot be connected to: connection refused" in str(error)


def test_a_name_without_address(server: Sshd) -> None:
    error = unreachable(server.login(address="no-such-host.invalid"))
    assert "the name no-such-host.invalid cannot be resolved" in str(error)
    assert "ansible_host" in str(error.hint)


def test_a_full_backlog_times_out(server: Sshd) -> None:
    with socket.socket() as sock, contextlib.ExitStack() as stack:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        started = time.monotonic()
        error = unreachable(server.login(port=sock.getsockname()[1], connect_timeout=0.7))
        assert "does not answer within 0.7 s" in str(error)
        assert time.monotonic() - started < 3


def test_a_port_that_says_nothing(server: Sshd) -> None:
    with listener(None) as port:
        started = time.monotonic()
        error = unreachable(server.login(port=port, connect_timeout=1.0))
        assert "shows no SSH banner within 1 s" in str(error)
        assert time.monotonic() - started < 4


def test_a_port_that_stops_after_its_banner(server: Sshd) -> None:
    with listener(lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        started = time.monotonic()
        error = unreachable(server.login(port=port, connect_timeout=1.0))
        assert "does not answer: no SSH handshake within 1 s" in str(error)
        assert time.monotonic() - started < 6
        with pytest.raises(UnreachableError, match="does not answer: no SSH handshake within 1 s"):
            fetch_host_key(server.login(port=port, connect_timeout=1.0))


def test_a_login_without_an_answer_is_no_refusal(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: paramiko.Transport, *given: Any) -> list[str]:
        frozen.set()
        return auth(self, *given)

    def relay(peer: socket.socket) -> None:
        onward = socket.create_connection(("127.0.0.1", server.port))
        threading.Thread(target=pump, args=(onward, peer, frozen), daemon=True).start()
        pump(peer, onward)

    frozen, auth = threading.Event(), paramiko.Transport.auth_publickey
    monkeypatch.setattr(paramiko.Transport, "auth_publickey", silent)
    monkeypatch.setattr("provision.connection.session.PATIENCE", 1.0)
    with listener(relay) as port:
        error = unreachable(server.login(port=port, connect_timeout=1.0))
        assert "does not answer the login within 1 s" in str(error)


def test_a_port_that_is_not_ssh(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.connection.session.ATTEMPTS", 2)

    def answer(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        peer.close()

    with listener(answer) as port:
        assert "without an SSH banner" in str(unreachable(server.login(port=port, connect_timeout=2.0)))


def test_connections_dropped_before_the_banner_are_tried_again(server: Sshd) -> None:
    dropped: list[int] = []

    def relay(peer: socket.socket) -> None:
        if len(dropped) < 3:
            dropped.append(1)
            peer.close()
            return
        with socket.create_connection(("127.0.0.1", server.port)) as real:
            threading.Thread(target=pump, args=(real, peer), daemon=True).start()
            pump(peer, real)

    with listener(relay) as port, Connection(server.login(port=port)) as connection:
        assert connection.run("echo in", timeout=5).ok
        assert connection.connects == 1
    assert len(dropped) == 3


def pump(source: socket.socket, sink: socket.socket, frozen: threading.Event | None = None) -> None:
    """Pass data on until it ends; drop it once ``frozen`` is set."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if frozen is None or not frozen.is_set():
                sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@needs_root
def test_many_logins_at_once_against_max_startups() -> None:
    with system_user("prov-plain2") as user, sshd("MaxStartups 4:50:8", user=user) as server:

        def check(number: int) -> bytes:
            with Connection(server.login(host=f"node{number}", connect_timeout=30.0)) as connection:
                return connection.run(f"echo {number}", timeout=30).stdout

        with ThreadPoolExecutor(40) as pool:
            assert list(pool.map(check, range(40))) == [f"{number}\n".encode() for number in range(40)]


def test_a_hundred_sessions_at_once(server: Sshd) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(50) as pool:
            # Their handshakes share the processors with all other tests.
            logins = [server.login(host=f"node{number}", connect_timeout=30.0) for number in range(100)]
            connections = [Connection(login) for login in logins]
            for connection in connections:
                stack.callback(connection.close)
            found = list(pool.map(lambda each: each.run("echo in", timeout=30).stdout, connections))
            assert found == [b"in\n"] * 100
    finally:
        sys.setswitchinterval(interval)


def test_threads_share_one_connection(connection: Connection) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: connection.run(f"echo {n}", timeout=20).stdout, range(24)))
    assert found == [f"{number}\n".encode() for number in range(24)]


def test_no_thread_and_no_descriptor_is_left(server: Sshd) -> None:
    def measure() -> tuple[int, int]:
        return len(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))

    with Connection(server.login()) as connection:
        connection.run("true", timeout=5)
    before = measure()
    for _ in range(5):
        with Connection(server.login()) as connection:
            connection.run("true", timeout=5)
        unreachable(server.login(host_key=()))
        unreachable(server.login(key_files=("/nonexistent",)))
    time.sleep(0.2)
    assert measure() <= before, threading.enumerate()


def test_a_session_that_ends_under_a_command(server: Sshd) -> None:
    with Connection(server.login()) as connection:
        pid = int(connection.run("echo $PPID; ps -o ppid= -p $PPID", timeout=5).stdout.split()[1])
        timer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        timer.start()
        started = time.monotonic()
        with pytest.raises(UnreachableError, match=r"lost after \d\.\d s of a long watch"):
            connection.run("echo x; sleep 20", timeout=30, what="a long watch")
        assert time.monotonic() - started < 5
        assert connection.run("echo again", timeout=5).stdout == b"again\n"
        assert connection.connects == 2


def test_a_peer_that_acknowledges_but_never_answers(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.connection.execution.SIGN_OF_LIFE", 0.5)
    frozen = threading.Event()

    def relay(peer: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as real:
            threading.Thread(target=pump, args=(real, peer, frozen), daemon=True).start()
            pump(peer, real, frozen)

    with listener(relay) as port, Connection(server.login(port=port, keepalive=0.5)) as connection:
        assert connection.run("sleep 1.5; echo quiet but alive", timeout=5).ok
        threading.Timer(0.3, frozen.set).start()
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="no answer for"):
            connection.run("echo x; sleep 20", timeout=30)
        assert time.monotonic() - started < 5


# --- jump hosts


def test_through_two_jump_hosts(server: Sshd) -> None:
    hops = (server.login(host="hop1"), server.login(host="hop2"))
    with Connection(server.login(jump=hops)) as connection:
        assert connection.run("echo there", timeout=5).stdout == b"there\n"
        assert connection.connects == 1
    assert fetch_host_key(server.login(jump=hops)).kind == "ssh-ed25519"


def test_a_jump_host_is_checked_and_named(server: Sshd) -> None:
    hop = server.login(host="node1 (jump host gate)", host_key=(), known_hosts=())
    assert str(unreachable(server.login(jump=(hop,)))).startswith("node1 (jump host gate): the host key of")


def test_a_host_that_the_jump_host_cannot_reach(server: Sshd) -> None:
    error = unreachable(server.login(port=1, jump=(server.login(host="hop"),)))
    assert "127.0.0.1 port 1 cannot be connected to through 127.0.0.1" in str(error)
    assert error.host == "node1"


# --- client configuration


def test_ssh_config_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host node1\n  Port 2022\n")
    assert Login.of("node1", {}, ssh_config()).port == 2022


def test_ssh_config_of_the_user_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Login.of("node1", {}, ssh_config()).user == getpass.getuser()
