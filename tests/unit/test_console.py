"""Host keys are read from consoles' logs, whatever the console did to them, and never from a cut line."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.bare import console
from provision.bare.console import Block, owner
from provision.connection.known_hosts import HostKey

ED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMeM8Y5TBNmT5iUTVTRkqAoQT9OTRzYxfNpPH1QvQYkq"
EC = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5"
    "YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="
)
BEGIN, END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"

SCRIPT = Path("/usr/lib/cloud-init/write-ssh-key-fingerprints")

NOTHING = "nothing in the log tells which host they are of"
TWO = "gpu-01, gpu-02 may be gpu-01.example.com or gpu-02"

NAMED = {name: ["gpu-01.example.com"] for name in ("gpu-01", "gpu-01.example.com")} | {"gpu-02": ["gpu-02"]}


PRINTS, PRINTS_END = (f"-----{word} SSH HOST KEY FINGERPRINTS-----" for word in ("BEGIN", "END"))


def fingerprints(*lines: str) -> str:
    """The fingerprints of keys as cloud-init prints them before the keys."""
    said = []
    for line in lines:
        kind, blob, comment = [*line.split(" ", 2), "no comment"][:3]
        bits, name = (256, "ED25519") if kind == "ssh-ed25519" else (256, "ECDSA")
        said.append(f"{bits} {HostKey(kind, blob).fingerprint} {comment} ({name})")
    return "".join(f"<14>Nov 27 17:01:02 cloud-init: {line}\n" for line in (PRINTS, *said, PRINTS_END))


def block(*lines: str, host: str = "gpu-01", prints: Sequence[str] | None = None) -> str:
    """The keys of a host as cloud-init prints them, after the fingerprints of ``prints`` or of all."""
    lines = lines or (f"{EC} root@{host}", f"{ED} root@{host}")
    return fingerprints(*(lines if prints is None else prints)) + "\n".join([BEGIN, *lines, END, ""])


def read(text: str) -> console.Log:
    return console.read(text, "sol.log")


def only(text: str) -> Block:
    """The one block of a log."""
    (found,) = read(text).blocks
    return found


def of(*lines: str) -> list[HostKey]:
    return [HostKey(*line.split()[:2]) for line in lines]


@pytest.mark.skipif(not SCRIPT.exists(), reason="cloud-init is not installed")
def test_what_cloud_init_itself_prints_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own script on keys in a folder of the test, with the real logger(1) and a log of its own."""
    for kind, line in (("ecdsa", EC), ("ed25519", ED)):
        (tmp_path / f"ssh_host_{kind}_key.pub").write_text(f"{line} root@gpu-01\n")
    text = (
        SCRIPT.read_text().replace("/etc/ssh/", f"{tmp_path}/").replace("logger $", "logger --socket log $")
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        monkeypatch.chdir(tmp_path)
        log.bind("log")
        said = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    assert "-----BEGIN SSH HOST KEY FINGERPRINTS-----" in said
    found = only(said)
    assert (found.keys, found.names, found.damaged, found.ended) == (of(EC, ED), {"gpu-01"}, {}, True)
    # A letter that became another one leaves a key that is whole; its fingerprint tells.
    assert only(said.replace(ED, ED.replace("Gu1v", "Gu2v"))).keys == of(EC)
    # So does a name that was cut, which is whole next to the fingerprint.
    assert only(said.replace(f"{ED} root@gpu-01", f"{ED} root@gpu-0")).keys == of(EC)


@pytest.mark.parametrize(
    "text",
    [
        block(),
        block().replace("\n", "\r\n"),
        block().replace("\n", "\r\r\n"),
        block().replace("\n", "\n\r"),
        block().replace(END, f"[   21.5] random: crng init done\n{END}"),
        block().replace(f"{ED}", f"[   21.512345] IPv6: ADDRCONF(NETDEV_CHANGE): eno1\r\n{ED}"),
        block().replace(f"{ED}", f"\x1b[0;1;32m[  OK  ]\x1b[0m Finished cloud-final.\r\n\r\n{ED}"),
        "".join(f"\x1b[2K\x1b]0;sol\x07\x1b[0m{line}\x1b[K\r\n" for line in block().splitlines()),
        "".join(f"[   23.512345] cloud-init[812]: {line}\n" for line in block().splitlines()),
        "".join(f"Nov 27 17:01:02 gpu-01 cloud-init[812]: {line}\n" for line in block().splitlines()),
        "\0\0garbage [ 1.0] Linux version 6.1\n" + block() + "gpu-01 login: ",
    ],
    ids=[
        "plain",
        "crlf",
        "crcrlf",
        "lfcr",
        "kernel",
        "kernel2",
        "systemd",
        "ansi",
        "prefix",
        "syslog",
        "garbage",
    ],
)
def test_what_consoles_add_is_taken_away(text: str) -> None:
    found = only(text)
    assert (found.keys, found.names, found.damaged) == (of(EC, ED), {"gpu-01"}, {})
    assert found.ended


@pytest.mark.parametrize(
    "lines",
    [
        [f"{ED[:60]}", f"{ED[60:]} root@gpu-01"],
        [f"{ED} root@gp", "u-01"],
        [f"{ED} root@gpu-0[   12.345678] random: crng init done", "1"],
        [f"{ED[:50]}[   12.345678] random: crng init done", f"{ED[50:]} root@gpu-01"],
        [f"{ED[:-1]}"],
        [f"{ED[:-4]} root@gpu-01"],
        [f"{ED[:40]}\b{ED[41:]} root@gpu-01"],
        [f"{ED.replace('ed25519 ', 'rsa ')} root@gpu-01"],
        [f"{ED} root@gpu-01\r{ED[:20]}"],
        [f"x{ED} root@gpu-01"],
    ],
)
def test_nothing_is_taken_from_a_cut_line(lines: list[str]) -> None:
    whole = f"{EC} root@gpu-01"
    found = only(block(whole, *lines, prints=[whole, f"{ED} root@gpu-01"]))
    assert [key for key in found.keys if key.kind != "ecdsa-sha2-nistp256"] == []
    assert found.damaged


def test_nothing_is_taken_from_a_block_without_its_end() -> None:
    text = block()
    begin = text.index(BEGIN)
    assert [len(read(text[:length]).blocks) for length in (0, 10, begin, begin + len(BEGIN))] == [0, 0, 0, 1]
    for length in range(begin + len(BEGIN), len(text) - 2):
        assert not only(text[:length]).ended
    first, second = read(text.replace(END, "") + block(f"{OTHER} root@gpu-02")).blocks
    assert (first.ended, second.ended, second.keys) == (False, True, of(OTHER))


@pytest.mark.parametrize(
    "text",
    [
        block(prints=[]),
        block().partition(PRINTS_END)[2].lstrip(),
        block().replace(PRINTS_END, ""),
        block(prints=[f"{OTHER} root@gpu-01"]),
        block(prints=[f"{EC} root@gpu-02", f"{ED} root@gpu-02"]),
        block().replace("Gu1v", "Gu2v").replace("BEmKSEN", "BEmKSFN"),
        block().partition(BEGIN)[0] + block(f"{EC} root@gpu-01", prints=[]),
    ],
    ids=["empty", "none", "cut", "other", "comment", "flipped", "printed anew without"],
)
def test_nothing_is_taken_without_the_fingerprint_before_it(text: str) -> None:
    found = only(text)
    assert found.keys == []
    assert found.damaged


def test_a_key_without_its_fingerprint_is_named() -> None:
    found = only(block(prints=[f"{EC} root@gpu-01"]))
    assert found.keys == of(EC)
    ((where, reason),) = found.damaged.items()
    assert (where.line, reason) == (
        6,
        f"its fingerprint is not printed before it: ssh-ed25519 {of(ED)[0].fingerprint}",
    )


@pytest.mark.parametrize("text", ["", "\n\r\n", "[    0.000000] Linux version 6.1\n", "\0"])
def test_a_log_that_says_nothing_has_nothing(text: str) -> None:
    assert read(text) == console.Log()


@settings(deadline=None)
@given(st.data())
def test_a_log_with_a_piece_lost_gives_no_key_that_was_not_there(data: st.DataObject) -> None:
    text = block() + block(f"{OTHER} root@gpu-02")
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 200)))
    noise = data.draw(
        st.sampled_from(["", "\r\n", "[   12.345678] usb 1-1: new device\r\n", "\x1b[0m", "A", "="])
    )
    log = read(text[:begin] + noise + text[end:])
    for found in log.blocks:
        assert set(found.keys) <= set(of(ED, EC, OTHER))
        if found.ended and found.names == {"gpu-02"}:
            assert set(found.keys) <= set(of(OTHER))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (block(), "gpu-01.example.com"),
        (block(host="GPU-01.example.com"), "gpu-01.example.com"),
        (block(ED) + "\r\nDebian GNU/Linux 12 gpu-01 ttyS0\r\n\r\ngpu-01 login: ", "gpu-01.example.com"),
        (block() + "gpu-02 login: \ngpu-01 login: \n", "gpu-01.example.com"),
        (block(ED), NOTHING),
        (block(ED) + "gpu-01 login: \ngpu-02 login: \n", NOTHING),
        (
            block(ED) + "gpu-01 login: \nlocalhost login: \n",
            NOTHING,
        ),
        (
            block(f"{EC} root@gpu-01", f"{ED} root@gpu-02"),
            TWO,
        ),
        (block(host="db-07") + "gpu-01 login: \n", "no host of the inventory is called db-07"),
        (block() + "gpu-02 login: \n", "the keys name gpu-01, and the log's prompts gpu-02"),
    ],
)
def test_a_block_is_of_the_host_that_it_or_the_log_names(text: str, expected: str) -> None:
    log = read(text)
    host, reason = owner(log, log.blocks[0], NAMED)
    assert (host or reason) == expected
