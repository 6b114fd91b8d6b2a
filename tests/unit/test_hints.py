"""Hints for messages as programs really print them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.causes.known_messages import KNOWN_MESSAGES, hint_for

CAPTURES = Path(__file__).parent.parent / "data/captures/h100-580/docker"
SECURE_BOOT = "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"
LOCK = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4242 (apt-get)"
SAMPLES = {
    "Cannot connect to the Docker daemon\nthe host is being shut down or rebooted": "when the host is back",
    f"task {'90ff551b' * 8} not found: not found": "systemctl restart its unit",
    f"Error response from daemon: manifest for a:b@sha256:{'0' * 64} not found: manifest unknown": "digest",
    "curl is not installed, which would fetch http://a/b.tar\nError response from daemon: received unexpected"
    " HTTP status: 500 Internal Server Error": "registry itself",
    f"Error response from daemon: Container {'90ff551b' * 8} is not running": "restart its unit",
    SECURE_BOOT: "Secure Boot",
    "reboot needed: kernel module nvidia_uvm is in use, so the new driver cannot be loaded": "run again",
    "Failed to initialize NVML: Driver/library version mismatch": "inv plan",
    "nouveau is loaded and holds the GPU; it is blacklisted now, and gone after a reboot": "reboot",
    "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1.0-32-amd64": "dkms status",
    "modprobe: FATAL: Module nvidia-current not found in directory /lib/modules/6.1.0-56-amd64\n"
    "modprobe: ERROR: ../libkmod/libkmod-module.c:1047 command_do() Error running install command "
    "'modprobe -i nvidia-current ' for module nvidia: retcode 1\n"
    "modprobe: ERROR: could not insert 'nvidia': Invalid argument": "dkms status",
    "modprobe: ERROR: could not insert 'nvidia': Required key not available": "Secure Boot",
    "E: Unable to locate package linux-headers-6.1.0-18-amd64": "install the newest kernel",
    "Error: Unable to find a match: kernel-devel-5.14.0-362.el9.x86_64": "install the newest kernel",
    "the headers of kernel 6.1.0-18-amd64 are missing": "install the headers",
    "E: Unable to locate package linux-modules-nvidia-580-server-open-6.8.0-31-generic": "prebuilt: false",
    "reboot needed: linux-modules-nvidia-580-server-open-6.8.0-31-generic cannot be installed, but kernel"
    " 6.8.0-90-generic has the driver": "--reboot",
    "Error! Your kernel headers for kernel 6.1.0-99-amd64 cannot be found": "install the headers",
    "/bin/sh: 1: gcc-12: not found": "version of gcc",
    "make[3]: x86_64-linux-gnu-gcc-13: No such file or directory": "version of gcc",
    "ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_unlock_strict'": "open",
    "Error! Bad return status for module build on kernel: 6.1.0-40-amd64 (x86_64)\n"
    "dpkg: error processing package nvidia-kernel-open-dkms (--configure):": "does not compile",
    "/boot/initrd.img-6.1.0-9-amd64 is older than /etc/modprobe.d/provision-nouveau.conf": "initramfs",
    LOCK: "wait until that process has ended",
    "another package operation is under way, and did not end within 120 s: process 7 (dpkg -i x)": "process",
    "apt would remove b, which the plan did not show: plan again": "inv plan",
    "libc6 is held by somebody, and apt would change it: apt-mark unhold libc6": "release the hold",
    "because: SHA1 is not considered secure since 2026-02-01T00:00:00Z": "old kind of signature",
    "sqv returned an error code (1), error message is: Missing key A4B4, which is needed": "check key",
    "Error: Failed to download metadata for repo 'x': repomd.xml GPG signature verification error: "
    "Bad GPG signature": "check key and fingerprint",
    "Error: GPG check FAILED": "check key and fingerprint",
    "E: Release file for https://x/InRelease is expired (invalid since 3d 2h).": "clock",
    "E: The repository 'https://x Release' does not have a Release file.": "check uri and suite",
    "E: Failed to fetch https://x/a.deb  404  Not Found [IP: 10.0.0.1 80]": "check uri and suite",
    "curl: (7) Failed to connect: Connection refused\n"
    "the host could not fetch the key 610C from https://x/D42D0685.pub": "give repo: uri, key",
    "the key of https://x/gpg has fingerprint AB, expected 060A": "check the mirror",
    "there is something else than an ASCII-armoured key in https://x/gpg": "check the mirror",
    "there is no whole OpenPGP key in https://x/gpg": "check the mirror",
    "Curl error (7): Couldn't connect to server for https://x/repodata/repomd.xml": "cannot reach",
    "Curl error (6): Couldn't resolve host name for https://x/repodata/repomd.xml": "cannot reach",
    "Error response from daemon: Head https://r/v2/t/manifests/1: no basic auth credentials": "docker login",
    "unauthorized: authentication required": "docker login",
    "Error response from daemon: Get https://r/v2/: proxyconnect tcp: dial tcp 10.0.0.1:3128: connect:"
    " connection refused": "dockerd's proxy",
    "no matching manifest for linux/arm64/v8 in the manifest list entries": "architecture",
    "Unable to initialize shared memory key 'triton_python_backend_shm_region_1' to requested size (1048576"
    " bytes). Error: No space left on device": "raise shm_size",
    "driver failed programming external connectivity: listen tcp4 10.9.9.9:8000: bind: cannot assign"
    " requested address": "does not have this address",
    "E: You don't have enough free space in /var/cache/apt/archives/.": "disk is full",
    "  At least 12MB more space needed on the / filesystem.": "disk is full",
    "E: The package nvidia-smi needs to be reinstalled, but I can't find an archive for it.": "reinstreq",
    "All matches were filtered out by exclude filtering for argument: nvidia-580.*": "versionlock",
    "Error: Unable to find a match: nvidia-driver-cuda-999.*": "no configured repository",
    "E: Unable to locate package nvidia-smi\nE: Unable to locate package libcuda1": "non-free-firmware",
    "E: Package 'nvidia-smi' has no installation candidate": "non-free-firmware",
    "E: Unable to locate package libcuda1\nE: Version '550.*' for 'nvidia-smi' was not found": "contrib",
    "E: Unable to locate package nvidia-headless-580-server": "restricted",
    "E: Package 'nvidia-driver-cuda' has no installation candidate": "no configured repository",
    "E: Unmet dependencies. Try 'apt --fix-broken install' with no packages": "stand in the way",
    "E: Unable to correct problems, you have held broken packages.": "stand in the way",
    "dpkg: error processing package nvidia-kernel-open-dkms (--configure):": "own script failed",
    "W: GPG error: https://x / InRelease: ... NO_PUBKEY A4B469963BF863CC": "check key and fingerprint",
    "W: GPG error: https://x InRelease: ... EXPKEYSIG A4B469963BF863CC x": "publisher's current one",
    "W: GPG error: https://x InRelease: ... BADSIG A4B469963BF863CC x": "does not match its signature",
    "E: The repository 'https://x / Release' is not signed.": "no signature that the host accepts",
    "E: Release file for https://x/InRelease is expired.\nx is not signed.": "no longer updated",
    "E: Conflicting values set for option Signed-By regarding source https://x /": "older source",
    "E: Failed to fetch https://x/Packages.gz  Hash Sum mismatch": "mirror",
    "curl: (7) Failed to connect: Connection refused": "cannot reach",
    "cp: error writing '/x': No space left on device": "disk is full",
    "/bin/sh: 12: echo: echo: I/O error": "disk is full, or it fails",
    "E: Version '580.999-1' for 'nvidia-driver-cuda' was not found": "apt-cache policy",
    "E: Unable to locate package nvidia-driver-cuda": "repository",
    "Error response from daemon: manifest for x:1 not found: manifest unknown: manifest unknown": "tag",
    "no progress in 300 s: the pull of x:1 was ended": "went silent",
    "no progress in 300 s: the load of /srv/images/x-1.tar was ended": "went silent",
    "nvcr.io/x:1 needs 14.0 GB, and 3.1 GB are free in /var/lib/docker": "docker system df",
    "curl is not installed, which would fetch http://m/x-1.tar: the registry is asked\n"
    "manifest for x:1 not found": "install curl",
    "nothing of /srv/images/x-1.tar.gz was loaded: it holds x:2, and not nvcr.io/x:1": "docker save",
    "zstd is not installed, which would read /srv/images/x-1.tar.zst": "install zstd",
    "triton@main.service did not get ready: no model; the previous version serves again": "inv plan",
    "triton@x.service did not get ready: a; the previous version is back, and does not get ready": "inv plan",
    "http: server gave HTTP response to HTTPS client": "insecure-registries",
    "error setting rlimit type 8: operation not permitted": "ulimits",
    'could not select device driver "" with capabilities: [[gpu]]': "restart docker.service",
    "unknown or invalid runtime name: nvidia": "reload docker.service",
    "Bind for 127.0.0.1:8000 failed: port is already allocated": "port",
    "nvidia-container-cli: initialization error: ERROR_LIBRARY_NOT_FOUND": "roles driver",
    "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found": "roles toolkit,docker",
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.": "modprobe nvidia",
    'exec: "nvidia-container-runtime": executable file not found in $PATH': "roles toolkit,docker",
    "docker: endpoint with name triton-main already exists in network bridge.": "restart docker.service",
    "timeout: failed to run command 'nvidia-smi': Permission denied": "chmod 755",
    "failed to get device handle from index: Invalid Argument": "nvidia-smi -L",
    'exec: "nvidia-smi": executable file not found in $PATH': "default runtime must be nvidia",
    "Failed to initialize NVML: Unknown Error": "restart its unit",
    "Failed to initialize NVML: Insufficient Permissions": "NVreg_DeviceFileMode",
    "No devices were found": "dmesg",
    "Error response from daemon: No such image: tritonserver:24.07-py3": "roles triton",
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.": "journalctl -u docker.service",
    "Unable to determine the device handle for GPU0000:02:00.0: Unknown Error": "slot",
    "h: a command of a check printed more than 8 MiB": "type -a nvidia-smi",
    "nvidia-smi (process 7) has hung in the kernel, so no other is started": "reboot the host",
    "bash: line 1: nvidia-smi: command not found": "roles driver",
    "timeout: failed to run command 'nvidia-ctk': No such file or directory": "provision --hosts {host}",
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


def test_every_row_can_be_the_answer() -> None:
    """A row that another one always precedes would never be given."""
    first = {next(row for row in KNOWN_MESSAGES if re.search(row.pattern, sample)) for sample in SAMPLES}
    assert [row.pattern for row in KNOWN_MESSAGES if row not in first] == []
