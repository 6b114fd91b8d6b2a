"""A TCP socket to a host: bounded, IPv6 and IPv4 side by side, tuned for commands and answers."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import time
from collections.abc import Iterable

STAGGER = 0.25
"""Seconds that one address is ahead of the next (RFC 8305, "Connection Attempt Delay")."""
DEAD_PEER = 30
"""Seconds after which data that nobody acknowledged ends the connection (tcp(7), TCP_USER_TIMEOUT)."""
READ_AHEAD = 1 << 16
"""Bytes that are taken from a socket at a time."""

Address = tuple[socket.AddressFamily, tuple[str | int, ...] | tuple[int, bytes]]


class PromptSocket(socket.socket):
    """A socket that acknowledges at once, and reads ahead: paramiko asks twice for each packet.

    sshd leaves Nagle's algorithm on where there is no terminal (packet.c, ssh_packet_set_interactive), so its
    answer to our first request waits for the acknowledgement of its last message, which the kernel holds back
    for 40 ms. TCP_QUICKACK is not a lasting mode (tcp(7)), so it is set with every read.
    """

    ahead = b""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if not self.ahead:
            self.ahead = super().recv(READ_AHEAD, flags)
            with contextlib.suppress(OSError):
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data, self.ahead = self.ahead[:bufsize], self.ahead[bufsize:]
        return data


def dial(name: str, port: int, timeout: float, keepalive: float) -> socket.socket:
    """Return a blocking socket connected to one of the addresses of ``name``, the first that answers.

    :param timeout: seconds for all attempts together; the resolver has its own (resolv.conf(5)).
    :raises socket.gaierror: where the name has no address.
    :raises TimeoutError: where no address answers in time.
    :raises OSError: where every address refuses; the error is that of the last one.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    sock = _race(_interleaved((family, address) for family, _, _, _, address in found), timeout)
    sock.settimeout(timeout)
    seconds = max(1, int(keepalive))
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER * 1000),
    ):
        sock.setsockopt(level, option, value)
    return sock


def _interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Return the addresses with families taking turns, the resolver's first choice first."""
    found = list(dict.fromkeys(addresses))
    first = [address for address in found if address[0] == found[0][0]]
    other = [address for address in found if address[0] != found[0][0]]
    return [address for pair in itertools.zip_longest(first, other) for address in pair if address]


def _race(addresses: list[Address], timeout: float) -> socket.socket:
    """Return the first socket that connects; the others are closed."""
    deadline = time.monotonic() + timeout
    failure: OSError = TimeoutError(f"no answer within {timeout:g} s")
    with selectors.PollSelector() as selector:
        try:
            while addresses or selector.get_map():
                now = time.monotonic()
                if now >= deadline:
                    raise TimeoutError(f"no answer within {timeout:g} s")
                if addresses:
                    _start(selector, *addresses.pop(0))
                pause = min(STAGGER, deadline - now) if addresses else deadline - now
                for key, _ in selector.select(pause):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    selector.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        return sock
                    sock.close()
                    failure = OSError(code, os.strerror(code))
            raise failure
        finally:
            for key in list((selector.get_map() or {}).values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()


def _start(selector: selectors.BaseSelector, family: socket.AddressFamily, address: object) -> None:
    """Start to connect; a failure shows when the socket is asked for it, as any other does."""
    sock = PromptSocket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.connect_ex(address)  # type: ignore[arg-type]
    selector.register(sock, selectors.EVENT_WRITE)
