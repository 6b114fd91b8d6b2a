"""Fingerprints of keys, against gpg itself, and against everything that is no key."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.resources.packages.openpgp import BEGIN, END, fingerprints
from tests.unit.keyring import KINDS, Keyring


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.make(tmp_path_factory.mktemp("gpg"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_is_the_one_that_gpg_says(keyring: Keyring, kind: str) -> None:
    assert fingerprints(keyring.export(kind)) == [keyring.fingerprints[kind]]


def test_all_keys_of_a_block_are_found(keyring: Keyring) -> None:
    assert sorted(fingerprints(keyring.export(*KINDS))) == sorted(keyring.fingerprints.values())


def test_all_keys_of_all_blocks_are_found(keyring: Keyring) -> None:
    """apt trusts the second block as well, so a key cannot hide there."""
    text = "\n".join(keyring.export(kind) for kind in KINDS)
    assert fingerprints(text) == [keyring.fingerprints[kind] for kind in KINDS]


def test_how_the_text_is_laid_out_does_not_matter(keyring: Keyring) -> None:
    lines = keyring.export("rsa2048").splitlines()
    expected = [keyring.fingerprints["rsa2048"]]
    with_headers = [lines[0], "Version: GnuPG v2", "Comment: a: b", *lines[1:]]
    for text in ("\r\n".join(lines), "\n\n" + "\n".join(lines) + "\n\n", "\n".join(with_headers)):
        assert fingerprints(text) == expected
    without_checksum = [line for line in lines if not line.startswith("=")]
    assert fingerprints("\n".join(f"  {line}" for line in without_checksum)) == expected


def test_a_key_whose_checksum_does_not_match_is_refused(keyring: Keyring) -> None:
    """gpg writes the checksum; a byte of a subkey or signature leaves the fingerprint as it was."""
    lines = keyring.export("rsa2048").splitlines()
    assert any(line.startswith("=") for line in lines)
    changed = lines[-4]
    lines[-4] = changed[:10] + ("A" if changed[10] != "A" else "B") + changed[11:]
    with pytest.raises(ValueError, match="the key block is damaged: its checksum does not match"):
        fingerprints("\n".join(lines))


@pytest.mark.parametrize("cut", [1, 2, 3, 40, 200])
def test_a_key_that_is_cut_short_is_refused(keyring: Keyring, cut: int) -> None:
    body = "".join(line for line in keyring.export("rsa2048").splitlines()[2:-1] if not line.startswith("="))
    data = base64.b64decode(body)[:-cut]
    with pytest.raises(ValueError, match="cut short"):
        fingerprints(block(data))


def test_secret_keys_are_refused(keyring: Keyring) -> None:
    text = keyring.gpg("--armor", "--export-secret-keys", keyring.fingerprints["ed25519"])
    with pytest.raises(ValueError, match="not an ASCII-armoured public key: -----BEGIN PGP PRIVATE"):
        fingerprints(text)
    with pytest.raises(ValueError, match="a packet with tag 5"):
        fingerprints(text.replace("PRIVATE", "PUBLIC"))


def block(data: bytes, headers: str = "\n") -> str:
    return f"{BEGIN}\n{headers}{base64.encodebytes(data).decode()}{END}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no public key"),
        ("hello", "not an ASCII-armoured public key"),
        (f"{BEGIN}\n\nmDME\n", "cut short"),
        (f"{END}\n", "not an ASCII-armoured public key"),
        (block(b"") + "and more", "not an ASCII-armoured public key"),
        (block(b"")[:-1] + BEGIN, "not an ASCII-armoured public key"),
        (f"{BEGIN}\n\n!!!!\n{END}", "damaged"),
        (f"{BEGIN}\n\nabc\n{END}", "damaged"),
        (f"{BEGIN}\nmDME\n\nmDME\n{END}", "a line above the empty one is no armour header"),
        (block(b""), "holds no public key"),
        (block(b"\x01"), "does not hold OpenPGP packets"),
        (block(b"\xc6\x01\x03"), "a key of version 3"),
        (block(b"\xc6\x01\x06"), "a key of version 6"),
        (block(b"\xc6\x00"), "a key of version ?"),
        (block(b"\xc6\xf0"), "indeterminate length"),
        (block(b"\x9b\x00"), "indeterminate length"),
        (block(b"\xc6\xff\x00\x01\x00\x00" + b"\x04" * 65536), "more than 64 KiB"),
    ],
)
def test_what_is_no_key(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        fingerprints(text)


@given(st.text() | st.binary().map(block) | st.binary().map(lambda data: block(b"\x99\x00\x05\x04" + data)))
def test_garbage_is_refused_or_read_but_never_breaks(text: str) -> None:
    try:
        found = fingerprints(text)
    except ValueError:
        return
    assert all(len(name) == 40 for name in found)
