"""Which addresses a host listens on, as the kernel tells it."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from provision.probe import Output
from provision.roles.triton.listening import listening


def test_real_sockets_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = Path("/proc/net/tcp").read_bytes()
        assert (ip_address("127.0.0.1"), server.getsockname()[1]) in listening(Output(0, text))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("0" * 32, "::"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
    ],
)
def test_addresses_are_read(text: str, address: str) -> None:
    line = f"   0: {text}:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1 0"
    assert listening(Output(0, line.encode())) == [(ip_address(address), 8000)]
