"""The proxy that stands for a bad network. It needs no lab."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lab.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def ask(connection: socket.socket, question: bytes) -> bytes:
    """Send, and read as many bytes back."""
    connection.sendall(question)
    answer = b""
    while len(answer) < len(question) and (data := connection.recv(65536)):
        answer += data
    return answer


def connect(proxy: Proxy) -> socket.socket:
    """A connection through the proxy; it gives up after 5 s."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_it_carries_bytes_and_counts_them(echo: int) -> None:
    question = bytes(range(256)) * 4096
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(question,), daemon=True).start()
        answer = b""
        while len(answer) < len(question):
            answer += connection.recv(65536)
        assert answer == question
        assert proxy.connections == 1
        # What has arrived here may not be counted there yet.
        end = time.monotonic() + 5
        while proxy.carried < 2 * len(question):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert proxy.carried == 2 * len(question)


def test_a_round_trip_takes_twice_the_delay(echo: int) -> None:
    with Proxy("127.0.0.1", echo, delay=0.1) as proxy, connect(proxy) as connection:
        started = time.monotonic()
        assert ask(connection, b"one") == b"one"
        assert 0.2 <= time.monotonic() - started < 0.4


def test_delay_does_not_add_up_over_bytes_in_flight(echo: int) -> None:
    with Proxy("127.0.0.1", echo, delay=0.1) as proxy, connect(proxy) as connection:
        started = time.monotonic()
        assert ask(connection, bytes(2_000_000)) == bytes(2_000_000)
        assert time.monotonic() - started < 1.5


def test_cut_resets_what_is_open_and_carries_what_comes(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        with connect(proxy) as connection:
            assert ask(connection, b"one") == b"one"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with connect(proxy) as connection:
            assert ask(connection, b"two") == b"two"


def test_refuse_accepts_no_more(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)


def test_stall_keeps_the_connection_and_resume_delivers(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.stall()
        connection.settimeout(0.3)
        connection.sendall(b"two")
        with pytest.raises(TimeoutError):
            connection.recv(3)
        proxy.resume()
        connection.settimeout(5)
        assert connection.recv(3) == b"two"


def test_an_end_of_either_side_reaches_the_other(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
