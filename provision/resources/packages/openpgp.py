"""Fingerprints of OpenPGP keys, so that a repository's key is checked before any host sees it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator

PUBLIC_KEY = 6
"""Packet tag of a primary public key (RFC 9580, section 5)."""

BESIDE_IT = frozenset({2, 10, 13, 14, 17, 21})
"""What a public key comes with: signatures, user ids and attributes, subkeys; markers and padding."""

BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
END = "-----END PGP PUBLIC KEY BLOCK-----"


def fingerprints(armoured: str) -> list[str]:
    """Fingerprints of all primary keys in ASCII-armoured text, in capital hexadecimal.

    apt trusts every key of every block in such a file, so none is left out.

    :raises ValueError: if it is not armoured public keys of version 4 and nothing else.
    """
    prints = []
    for block in _blocks(armoured):
        for tag, packet in _packets(_dearmour(block)):
            if tag == PUBLIC_KEY:
                prints.append(_fingerprint(packet))
            elif tag not in BESIDE_IT:
                raise ValueError(f"the key block holds a packet with tag {tag}, which no public key has")
    if not prints:
        raise ValueError("the key block holds no public key")
    return prints


def _blocks(text: str) -> Iterator[list[str]]:
    """The lines between the armour's first and last line, for each block."""
    block: list[str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line == BEGIN and block is None:
            block = []
        elif line == END and block is not None:
            yield block
            block = None
        elif line.startswith("-----"):
            raise ValueError(f"not an ASCII-armoured public key: {line[:60]}")
        elif block is not None:
            block.append(line)
        elif line:
            raise ValueError(f"not an ASCII-armoured public key ({BEGIN})")
    if block is not None:
        raise ValueError("the key block is cut short")


def _dearmour(block: list[str]) -> bytes:
    """The data of a block.

    :raises ValueError: if it is damaged; rpm refuses it then, too.
    """
    # Armour headers end at the first empty line; the line that starts with = is a checksum (RFC 9580, 6.1).
    head = block.index("") if "" in block else 0
    if any(": " not in line for line in block[:head]):
        raise ValueError("the key block is damaged: a line above the empty one is no armour header")
    data = block[head:]
    sums = [line[1:] for line in data if line.startswith("=")]
    try:
        body = base64.b64decode("".join(line for line in data if not line.startswith("=")), validate=True)
        right = all(base64.b64decode(text, validate=True) == _checksum(body) for text in sums)
    except binascii.Error as error:
        raise ValueError(f"the key block is damaged: {error}") from error
    if not right:
        raise ValueError("the key block is damaged: its checksum does not match")
    return body


def _checksum(body: bytes) -> bytes:
    """CRC-24 (RFC 9580, section 6.1.1)."""
    crc = 0xB704CE
    for byte in body:
        crc ^= byte << 16
        for _ in range(8):
            crc = (crc << 1) ^ (0x1864CFB if crc & 0x800000 else 0)
    return crc.to_bytes(3)


def _packets(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each packet (RFC 9580, section 4.2)."""
    at = 0
    try:
        while at < len(body):
            tag, at, length = _header(body, at)
            if at + length > len(body):
                raise ValueError("the key block is cut short")
            yield tag, body[at : at + length]
            at += length
    except IndexError as error:
        raise ValueError("the key block is cut short") from error


def _header(body: bytes, at: int) -> tuple[int, int, int]:
    """Tag, where the content begins, and its length in bytes."""
    first = body[at]
    if not first & 0x80:
        raise ValueError("the key block does not hold OpenPGP packets")
    if not first & 0x40:
        size = 1 << (first & 3)
        if size == 8:
            raise ValueError("the key block holds a packet of indeterminate length")
        return (first >> 2) & 0x0F, at + 1 + size, int.from_bytes(body[at + 1 : at + 1 + size])
    length = body[at + 1]
    if length < 192:
        return first & 0x3F, at + 2, length
    if length < 224:
        return first & 0x3F, at + 3, ((length - 192) << 8) + body[at + 2] + 192
    if length == 255:
        return first & 0x3F, at + 6, int.from_bytes(body[at + 2 : at + 6])
    raise ValueError("the key block holds a packet of indeterminate length")


def _fingerprint(packet: bytes) -> str:
    if not packet or packet[0] != 4:
        raise ValueError(f"a key of version {packet[0] if packet else '?'}; apt's keys are of version 4")
    if len(packet) > 0xFFFF:
        raise ValueError("a public key of more than 64 KiB")
    # SHA-1 is what the format defines for version 4 keys (RFC 9580, section 5.5.4.2).
    return hashlib.sha1(b"\x99" + len(packet).to_bytes(2) + packet).hexdigest().upper()  # noqa: S324
