"""Public keys that an account takes: lines of authorized_keys without options. Pure."""

from __future__ import annotations

import re
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import AfterValidator, StringConstraints

from provision.role import ImpossibleError

TYPES = re.compile(
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
)
"""Types of keys that sshd takes without being told to (sshd_config(5), PubkeyAcceptedAlgorithms)."""

RSA_BITS = 2048
"""Bits that sshd of RHEL 9 asks of an RSA key; other systems ask for 1024."""


def _public_key(text: str) -> str:
    kind, _, rest = text.partition(" ")
    better = "ssh-keygen -t ed25519 makes one that it takes"
    if not TYPES.fullmatch(kind):
        raise ImpossibleError(f"sshd takes no public key of the type {kind}", better)
    try:
        key = load_ssh_public_key(f"{kind} {rest.split(' ')[0]}".encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        hint = "the line of a .pub file: ssh-ed25519 AAAA… NAME"
        raise ImpossibleError(f"{text[:40]!r}… is not a whole public key", hint) from None
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
        message = f"an RSA key must have {RSA_BITS} bits, and this one has {key.key_size}"
        raise ImpossibleError(message, better)
    return text


PublicKey = Annotated[
    str,
    StringConstraints(pattern=r"^(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [ -~]*)?$"),
    AfterValidator(_public_key),
]
"""``TYPE BASE64``, with or without a comment."""
