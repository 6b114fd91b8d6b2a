"""The readiness gate: what it waits for, and what it says when nobody will be ready."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.render import render


@contextmanager
def server(status: str | None) -> Iterator[int]:
    """The port of a server that answers everybody with ``status``; None: it answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                held.append(connection)
                if status is not None:
                    connection.recv(1024)
                    connection.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode())

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@contextmanager
def process(seconds: float) -> Iterator[int]:
    """The id of a process that lives for so long, and is gone then."""
    with subprocess.Popen(["sleep", str(seconds)]) as running:
        threading.Thread(target=running.wait, daemon=True).start()
        yield running.pid
        running.kill()


def gate(
    tmp_path: Path,
    port: int,
    limit: int,
    pid: int | None,
    container: str = "abc",
    *,
    models: Sequence[str] = (),
) -> tuple[int, str, float]:
    """Exit code and words of the gate, and the seconds that it took; Docker lists ``container``."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho {container}\n")
    docker.chmod(0o755)
    script = render("triton/wait-ready.j2").replace("/usr/bin/docker", str(docker))
    argv = ["bash", "-c", script, "gate", "127.0.0.1", str(port), str(limit), "triton-main", *models]
    env = {"PATH": "/usr/bin:/bin"} | ({} if pid is None else {"MAINPID": str(pid)})
    began = time.monotonic()
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr, time.monotonic() - began


def unused() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


ENDED = "the server ended while it was loading, {}; its log above says why\n"


def test_a_server_that_is_ready_opens_it(tmp_path: Path) -> None:
    with server("200 OK") as port, process(60) as pid:
        assert gate(tmp_path, port, 9, pid)[:2] == (0, "")


def test_a_process_that_is_gone_ends_it_at_once(tmp_path: Path) -> None:
    with process(0) as pid:
        time.sleep(0.2)
        for gone in (pid, None):
            code, says, seconds = gate(tmp_path, unused(), 60, gone)
            assert (code, says) == (1, ENDED.format("no answer yet"))
            assert seconds < 2


@pytest.mark.parametrize(
    ("status", "seen"), [("400 Bad Request", "last answer: HTTP 400"), (None, "no answer yet")]
)
def test_a_process_that_ends_later_ends_it_with_the_last_answer(
    tmp_path: Path, status: str | None, seen: str
) -> None:
    """Also while somebody who answers nothing is asked."""
    with server(status) as port, process(0.7) as pid:
        code, says, seconds = gate(tmp_path, port, 60, pid)
    assert (code, says) == (1, ENDED.format(seen))
    assert seconds < 4


@pytest.mark.parametrize(
    ("status", "container", "seen"),
    [
        ("400 Bad Request", "abc", "last answer: HTTP 400"),
        ("200 OK", "", "last answer: HTTP 200"),  # of somebody else: our container does not run
    ],
)
def test_a_server_that_is_not_ready_in_time_is_told_with_its_last_answer(
    tmp_path: Path, status: str, container: str, seen: str
) -> None:
    with server(status) as port, process(60) as pid:
        code, says, _ = gate(tmp_path, port, 1, pid, container)
    address = f"http://127.0.0.1:{port}/v2/health/ready"
    assert (code, says) == (1, f"not ready after 1 s, {seen} ({address})\n")
