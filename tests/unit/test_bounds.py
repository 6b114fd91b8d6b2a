"""Hosts that print without end, trickle, or send what is no SSH: what they cost, and that they end."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.causes.known_messages import cause
from provision.connection import Connection, DeadlineError, FloodError, execution
from provision.connection.frames import NOISE
from provision.connection.login import Login
from provision.connection.session import LARGEST_PACKET, fetch_host_key
from provision.errors import HostError, ProbeError, UnreachableError
from provision.probe import Output, Probe
from provision.run.gather import gather
from provision.verify.batch import Question, ask_alone
from tests.sshd import SSHD, Sshd, sshd, system_user

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason="openssh-server is not installed")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to make users")

ROOT = Path(__file__).resolve().parents[2]
FLOODS = {
    "without end": "exec cat /dev/zero",
    "200 MB": "head -c 200000000 /dev/zero; echo done",
    "lines without end": "exec yes",
    "errors without end": "exec yes >&2",
    "both": "yes >&2 & exec yes",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(system_user("prov-flood")) if os.getuid() == 0 else None
        yield stack.enter_context(sshd(user=user))


# --- output


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_host_that_floods_is_one_sentence_and_the_next_command_runs(server: Sshd, flood: str) -> None:
    with Connection(server.login()) as connection:
        with pytest.raises(FloodError) as caught:
            connection.run(flood, timeout=60, what="a long look")
        assert str(caught.value) == "node1: a long look printed more than 8 MiB"
        assert caught.value.hint == "run it by hand on the host: something there prints without end"
        assert connection.run("echo still", timeout=10).stdout == b"still\n"


def test_a_probe_that_floods_is_named(server: Sshd) -> None:
    probes = [Probe("quick", "echo 1"), Probe("flood", "cat /dev/zero"), Probe("later", "echo 2")]
    with Connection(server.login()) as connection, pytest.raises(ProbeError) as caught:
        gather(connection, probes)
    assert str(caught.value) == "node1: 3 probes printed more than 8 MiB, in probe flood"


def test_lines_that_are_followed_are_bounded_too(server: Sshd) -> None:
    seen: list[int] = []
    with Connection(server.login()) as connection:
        with pytest.raises(FloodError, match="printed more than 8 MiB"):
            connection.run("exec yes", timeout=60, on_line=lambda line: seen.append(len(line)))
        with pytest.raises(FloodError, match="printed a line of more than 64 KiB"):
            connection.run("exec cat /dev/zero", timeout=60, on_line=lambda line: seen.append(len(line)))
    assert set(seen) == {1}
    assert len(seen) * 2 < 9 << 20


@needs_root
def test_a_command_of_a_check_that_floods_has_a_hint_that_helps(server: Sshd) -> None:
    """It was not killed, and dmesg says nothing of it."""
    with Connection(server.login()) as connection:
        answer = ask_alone(connection, Question("yes"))
    why, hint = cause(answer)
    assert (answer.exit_code, why) == (1, "it prints without end")
    assert hint is not None
    assert hint.startswith("on the host: type -a nvidia-smi docker shows which programs answer")


def test_a_login_shell_that_floods_is_one_sentence() -> None:
    with (
        system_user("prov-noisy", bashrc="yes welcome\n") as user,
        sshd(user=user) as server,
        Connection(server.login()) as connection,
        pytest.raises(HostError, match="more than 64 KiB were printed before the command started") as caught,
    ):
        connection.run("echo hi", timeout=20)
    assert "rc files" in str(caught.value.hint)


@needs_root
def test_a_long_welcome_is_none_of_the_answer() -> None:
    with (
        system_user("prov-noisy", bashrc=f"head -c {NOISE // 2} /dev/zero; echo; sleep 0.2; echo\n") as user,
        sshd(user=user) as server,
        Connection(server.login()) as connection,
    ):
        assert connection.run("echo hi", timeout=20) == Output(0, b"hi\n")


def test_the_time_limit_holds_while_output_comes(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script leaves behind in a session of its own is not ended with it, and holds the output open."""
    monkeypatch.setattr(execution, "GRACE", 0.5)
    monkeypatch.setattr(execution, "KILL_AFTER", 0.5)
    trickle = "setsid sh -c 'n=0; while [ $n -lt 200 ]; do echo x; sleep 0.05; n=$((n + 1)); done' & exit 0"
    began = time.monotonic()
    with (
        Connection(server.login()) as connection,
        pytest.raises(DeadlineError, match="did not end within 1 s"),
    ):
        connection.run(trickle, timeout=1)
    assert time.monotonic() - began < 5


MEASURE = """
import resource, sys, threading
from concurrent.futures import ThreadPoolExecutor
from provision.connection import Connection, FloodError
from provision.connection.login import Login

port, user, key, host_key, flood = sys.argv[1:]

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def connection(number):
    return Connection(Login(f"n{number}", "127.0.0.1", int(port), user, (key,), host_key=(host_key,)))

hosts = [connection(number) for number in range(10)]

def work(number, script):
    try:
        return hosts[number].run(script, timeout=30).stdout
    except FloodError as error:
        return str(error).encode()

with ThreadPoolExecutor(10) as pool:
    quiet = list(pool.map(work, range(10), ["seq 50000; echo end"] * 10))
    before = peak()
    told = list(pool.map(work, range(10), [flood] + ["seq 50000; echo end"] * 9))
    print(peak() - before)
    assert told[1:] == quiet[1:], "the others have their answers"
    assert told[0].endswith(b"printed more than 8 MiB"), told[0][:200]
for host in hosts:
    host.close()
"""


@pytest.mark.parametrize("flood", ["without end", "200 MB", "errors without end"])
def test_one_flooding_host_among_ten_costs_at_most_40_megabytes(server: Sshd, flood: str) -> None:
    login = server.login()
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            MEASURE,
            str(login.port),
            login.user,
            login.key_files[0],
            login.host_key[0],
            FLOODS[flood],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 40 * 1024, "KiB"


# --- servers that are no sshd


@contextlib.contextmanager
def hostile(send: Callable[[socket.socket], object]) -> Iterator[Login]:
    """A server that sends what it likes to everybody, and closes; the login to it."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                with peer, contextlib.suppress(OSError):
                    send(peer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        login = Login("bad", "127.0.0.1", listening.getsockname()[1], "root", connect_timeout=1.0)
        try:
            yield login
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def forever(data: bytes) -> Callable[[socket.socket], None]:
    def send(peer: socket.socket) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            peer.sendall(data)

    return send


BANNER = b"SSH-2.0-OpenSSH_9.2\r\n"
SERVERS = {
    "a line without end": (forever(b"A" * 4096), "sends something else than an SSH banner"),
    "lines without end": (forever(b"hello\r\n"), "sends something else than an SSH banner"),
    "a huge packet": (
        lambda peer: (peer.sendall(BANNER + struct.pack(">I", 0xFFFF_FFF4)), forever(b"x" * 65536)(peer)),
        "the host sent a packet of 4294967280 bytes",
    ),
    "noise after the banner": (
        lambda peer: (peer.sendall(BANNER), forever(b"\xff" * 4096)(peer)),
        "the handshake failed: Invalid packet blocking",
    ),
    "no text": (lambda peer: peer.sendall(b"SSH-2.0-\xff\x00\x1b[2J\r\n" + b"\x14" * 16), "an SSH banner"),
    "another version": (lambda peer: peer.sendall(b"SSH-1.5-old\r\n"), "Incompatible version"),
}


@pytest.mark.parametrize(("send", "said"), SERVERS.values(), ids=SERVERS)
@pytest.mark.parametrize(
    "ask", [lambda login: Connection(login).open(), fetch_host_key], ids=["login", "enrol"]
)
def test_a_server_that_is_no_sshd_is_one_sentence_in_a_bounded_time(
    send: Callable[[socket.socket], object],
    said: str,
    ask: Callable[[Login], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("provision.connection.session.ATTEMPTS", 2)
    began = time.monotonic()
    with hostile(send) as login, pytest.raises(UnreachableError) as caught:
        ask(login)
    assert time.monotonic() - began < 8
    assert said in caught.value.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    payloads=st.lists(
        st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\x14" + rest),
        min_size=1,
        max_size=3,
    )
)
def test_packets_of_any_content_end_in_an_error_of_ours(payloads: list[bytes]) -> None:
    def packet(payload: bytes) -> bytes:
        padding = 4 + (-(len(payload) + 9) % 8)
        return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)

    data = BANNER + b"".join(map(packet, payloads))
    with hostile(lambda peer: peer.sendall(data)) as login, pytest.raises(UnreachableError):
        fetch_host_key(login)


def test_a_packet_may_be_as_large_as_sshd_sends_it(server: Sshd) -> None:
    assert LARGEST_PACKET == 256 * 1024
    with Connection(server.login()) as connection:
        assert len(connection.run("head -c 4000000 /dev/zero", timeout=20).stdout) == 4_000_000


def test_hosts_that_hang_or_flood_break_no_other(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.connection.session.ATTEMPTS", 2)
    with contextlib.ExitStack() as stack:
        bad = [stack.enter_context(hostile(send)) for send, _ in SERVERS.values()]
        with ThreadPoolExecutor(20) as pool:

            def ask(login: Login) -> str:
                try:
                    with Connection(login) as connection:
                        return connection.run("echo fine", timeout=10).out
                except HostError as error:
                    return type(error).__name__

            found = list(pool.map(ask, [*bad, *(server.login(host=f"n{number}") for number in range(8))]))
    assert found == ["UnreachableError"] * len(bad) + ["fine\n"] * 8
