"""Fingerprints of OpenPGP keys, so that a repository's key is checked before any host sees it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator

PUBLIC_KEY = 6
"""Packet tag of a primary public key (RFC 9580, section 5)."""


def fingerprints(armoured: str) -> list[str]:
    """Fingerprints of the primary keys in ASCII-armoured text, in capital hexadecimal.

    :raises ValueError: if it is not an armoured public key of version 4.
    """
    body = _dearmour(armoured)
    found = [_fingerprint(packet) for tag, packet in _packets(body) if tag == PUBLIC_KEY]
    if not found:
        raise ValueError("the key block holds no public key")
    return found


def _dearmour(text: str) -> bytes:
    lines = [line.strip() for line in text.strip().splitlines()]
    begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
    if begin not in lines or end not in lines:
        raise ValueError("not an ASCII-armoured public key (-----BEGIN PGP PUBLIC KEY BLOCK-----)")
    block = lines[lines.index(begin) + 1 : lines.index(end)]
    # Armour headers end at the first empty line; the line that starts with = is a checksum (RFC 9580, 6.1).
    data = block[block.index("") + 1 :] if "" in block else block
    try:
        return base64.b64decode("".join(line for line in data if not line.startswith("=")), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the key block is damaged: {error}") from error


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
            raise ValueError("a packet of unknown length in the key block")
        return (first >> 2) & 0x0F, at + 1 + size, int.from_bytes(body[at + 1 : at + 1 + size])
    length = body[at + 1]
    if length < 192:
        return first & 0x3F, at + 2, length
    if length < 224:
        return first & 0x3F, at + 3, ((length - 192) << 8) + body[at + 2] + 192
    if length == 255:
        return first & 0x3F, at + 6, int.from_bytes(body[at + 2 : at + 6])
    raise ValueError("a packet of unknown length in the key block")


def _fingerprint(packet: bytes) -> str:
    if not packet or packet[0] != 4:
        raise ValueError(f"a key of version {packet[0] if packet else '?'}; apt's keys are of version 4")
    # SHA-1 is what the format defines for version 4 keys (RFC 9580, section 5.5.4.2).
    return hashlib.sha1(b"\x99" + len(packet).to_bytes(2) + packet).hexdigest().upper()  # noqa: S324
