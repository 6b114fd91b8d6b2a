"""Where a host listens, from /proc/net/tcp: no program is needed for it. Pure."""

from __future__ import annotations

import ipaddress

from provision.probe import Output, Probe

SOCKETS = Probe("listening sockets", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || :")

LISTEN = "0A"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening(answer: Output) -> list[tuple[Address, int]]:
    """Address and port of every listening TCP socket; IPv4 in IPv6 as IPv4."""
    found = []
    for line in answer.out.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[3] == LISTEN:
            address, _, port = fields[1].partition(":")
            found.append((_address(address), int(port, 16)))
    return found


def _address(text: str) -> Address:
    """An address as the kernel prints it: words of 32 bits, each in the byte order of the machine.

    Every machine that NVIDIA's driver runs on is little-endian.
    """
    data = bytes.fromhex(text)
    words = [data[start : start + 4] for start in range(0, len(data), 4)]
    address = ipaddress.ip_address(b"".join(word[::-1] for word in words))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
