"""Hints for messages as programs really print them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.hints import HINTS, hint_for

CAPTURES = Path(__file__).parent.parent / "data/captures/h100-580/docker"
SECURE_BOOT = "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"
LOCK = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4242 (apt-get)"
SAMPLES = {
    SECURE_BOOT: "Secure Boot",
    "reboot needed: kernel module nvidia_uvm is in use, so the new driver cannot be loaded": "run again",
    "nouveau is loaded and holds the GPU; it is blacklisted now, and gone after a reboot": "reboot",
    "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1.0-32-amd64": "dkms status",
    LOCK: "lock",
    "W: GPG error: https://x / InRelease: ... NO_PUBKEY A4B469963BF863CC": "check key and fingerprint",
    "E: The repository 'https://x / Release' is not signed.": "check key and fingerprint",
    "E: Conflicting values set for option Signed-By regarding source https://x /": "older source",
    "E: Failed to fetch https://x/Packages.gz  Hash Sum mismatch": "mirror",
    "curl: (7) Failed to connect: Connection refused": "cannot reach",
    "cp: error writing '/x': No space left on device": "disk is full",
    "E: Version '580.999-1' for 'nvidia-driver-cuda' was not found": "apt-cache policy",
    "E: Unable to locate package nvidia-driver-cuda": "repository",
    "Error response from daemon: manifest for x:1 not found: manifest unknown: manifest unknown": "tag",
    "http: server gave HTTP response to HTTPS client": "insecure-registries",
    "error setting rlimit type 8: operation not permitted": "ulimits",
    'could not select device driver "" with capabilities: [[gpu]]': "restart docker.service",
    "unknown or invalid runtime name: nvidia": "reload docker.service",
    "Bind for 127.0.0.1:8000 failed: port is already allocated": "port",
}


@pytest.mark.parametrize(("output", "hint"), SAMPLES.items())
def test_known_messages(output: str, hint: str) -> None:
    assert hint in str(hint_for(f"something before\n{output}\nsomething after\n"))


@pytest.mark.parametrize(
    ("capture", "hint"),
    [
        ("A3_gpus_all_no_toolkit.txt", "restart docker.service"),
        ("A4_runtime_nvidia_missing.txt", "reload docker"),
    ],
)
def test_messages_of_a_real_docker(capture: str, hint: str) -> None:
    assert hint in str(hint_for((CAPTURES / capture).read_text()))


@pytest.mark.parametrize("output", ["", "all is well", "Setting up docker.io (20.10.24) ..."])
def test_no_hint_is_made_up(output: str) -> None:
    assert hint_for(output) is None


def test_every_hint_can_be_given() -> None:
    given = {hint_for(sample) for sample in SAMPLES}
    assert given == {hint for _, hint in HINTS}
    assert all(re.compile(pattern) for pattern, _ in HINTS)
