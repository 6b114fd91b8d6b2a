"""known_hosts files: what ssh-keygen writes, we find."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.connection.host_key_check import to_take_away
from provision.connection.known_hosts import HostKey, KnownHosts
from provision.connection.login import Login
from provision.errors import Location

A = "AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"
B = "AAAAC3NzaC1lZDI1NTE5AAAAIMeM8Y5TBNmT5iUTVTRkqAoQT9OTRzYxfNpPH1QvQYkq"
FILE = f"""\
# a comment
node1,10.0.0.1 ssh-ed25519 {A} root@node1
[node2]:2222 ssh-ed25519 {A}
*.example.com,!bad.example.com ssh-ed25519 {B}
[*.lab]:2200 ssh-ed25519 {B}
@revoked * ssh-ed25519 {B}
@cert-authority *.example.com ssh-ed25519 {A}
node1 ssh-rsa AAAA
Mixed.Case ssh-ed25519 {A}

broken line
|1|nobase64!|x ssh-ed25519 {A}
"""


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("node1", ["ssh-ed25519", "ssh-rsa"]),
        ("10.0.0.1", ["ssh-ed25519"]),
        ("node2", []),
        ("[node2]:2222", ["ssh-ed25519"]),
        ("a.example.com", ["ssh-ed25519"]),
        ("bad.example.com", []),
        ("example.com", []),
        ("[x.lab]:2200", ["ssh-ed25519"]),
        ("[x.lab]:2201", []),
        ("mixed.case", ["ssh-ed25519"]),
        ("", []),
    ],
)
def test_names(name: str, kinds: list[str]) -> None:
    known = KnownHosts()
    known.add(FILE, "known_hosts")
    assert [key.kind for key in known.keys_of(name)] == kinds


def test_revoked_keys() -> None:
    known = KnownHosts()
    known.add(FILE, "known_hosts")
    assert known.revoked == {HostKey("ssh-ed25519", B): Location("known_hosts", 6)}
    assert known.revoked_for("node1") == (), "a pattern may mean other hosts"


def test_a_line_that_revokes_the_key_of_a_host_by_its_name() -> None:
    known = KnownHosts()
    known.add(f"@revoked [node1]:2222,node1 ssh-ed25519 {A}\n", "known_hosts")
    assert known.revoked_for("[node1]:2222") == known.revoked_for("node1") == (HostKey("ssh-ed25519", A),)
    assert known.revoked_for("node2") == known.keys_of("node1") == ()


def test_hashed_names_as_ssh_keygen_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"node1 ssh-ed25519 {A}\n[10.0.0.1]:2222 ssh-ed25519 {B}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    known = KnownHosts()
    known.add(file.read_text(), str(file))
    assert not known.names
    assert known.keys_of("node1") == (HostKey("ssh-ed25519", A),)
    assert known.keys_of("[10.0.0.1]:2222") == (HostKey("ssh-ed25519", B),)
    assert known.keys_of("10.0.0.1") == ()


def test_fingerprint_as_ssh_keygen_prints_it(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(f"ssh-ed25519 {A}\n")
    printed = subprocess.run(
        ["ssh-keygen", "-lf", str(file)], check=True, capture_output=True, text=True
    ).stdout
    assert HostKey.of(f"ssh-ed25519 {A}").fingerprint in printed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ????",
        f"ssh-rsa {A}",
        "ssh-ed25519 AAAA",
        f"ssh-ed25519 {A[:40]}",
        f"ssh-ed25519 {A[:20]}",
    ],
)
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        HostKey.of(text)


@given(st.text(max_size=200), st.text(max_size=20))
def test_any_file_can_be_read(text: str, name: str) -> None:
    known = KnownHosts()
    known.add(text, "known_hosts")
    known.keys_of(name)


def test_what_takes_a_known_key_away_works(tmp_path: Path) -> None:
    """In each of the files that hold it, whatever they are called, under the name that it has there."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    files = [tmp_path / name for name in ("known hosts", "known_hosts2", "others")]
    login = Login("h", "192.0.2.1", port=2222, user="ops", known_hosts=tuple(map(str, files)))
    for name in ("[192.0.2.1]:2222", "192.0.2.1"):
        for file in files:
            file.write_text(f"{name if file != files[2] else 'else'} {public}\n")
        said = to_take_away(login)
        assert said.count("ssh-keygen -R") == 2
        subprocess.run(["sh", "-ec", said.replace("`", "").replace(" and ", "\n")], check=True)
        assert [file.read_text() for file in files] == ["", "", f"else {public}\n"]
    assert (
        to_take_away(Login("h", "192.0.2.1", user="ops", host_key=(public,))) == "host_key in the inventory"
    )
