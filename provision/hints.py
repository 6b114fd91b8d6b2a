"""Known messages of failed commands, and what to do about them."""

from __future__ import annotations

import re

HINTS: tuple[tuple[str, str], ...] = (
    (
        r"Key was rejected by service|module verification failed",
        "Secure Boot refuses the unsigned module: use signed packages, or enrol a key with mokutil",
    ),
    (
        r"reboot needed: kernel module",
        "stop what uses the GPUs and run again, or reboot: until then module and libraries do not fit",
    ),
    (r"nouveau is loaded", "reboot the host: nouveau is blacklisted now, and its initramfs rebuilt"),
    (
        r"modprobe: FATAL: Module nvidia not found",
        "the module was not built for the running kernel: see dkms status, and install the kernel's headers",
    ),
    (
        r"Could not get lock|is another process using it",
        "another package operation has held the lock for 5 minutes: fuser -v /var/lib/dpkg/lock-frontend",
    ),
    (
        r"NO_PUBKEY|is not signed|BADSIG|EXPKEYSIG",
        "the repository is signed by another key than the one in the settings: check key and fingerprint",
    ),
    (
        r"Conflicting values set for option Signed-By",
        "an older source file names the same repository: remove it",
    ),
    (
        r"Hash Sum mismatch|File has unexpected size",
        "the mirror is being updated or broken: try again, or choose another",
    ),
    (
        r"(Could not|Unable to) connect|Temporary failure resolving|Connection (refused|timed out)",
        "the host cannot reach the server: check the mirror's address, the route and the proxy",
    ),
    (r"No space left on device", "the disk is full: see df -h on the host"),
    (
        r"Version '.*' for '.*' was not found",
        "the repository does not have this version: see apt-cache policy",
    ),
    (r"Unable to locate package", "no configured repository has this package: check repo in the settings"),
    (
        r"manifest unknown|not found: manifest",
        "the registry does not have this tag: check the image in the settings",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain HTTP: add it to docker.daemon insecure-registries",
    ),
    (
        r"error setting rlimit type",
        "the host does not allow raising this limit: set ulimits: {} for the instance",
    ),
    (
        r"could not select device driver",
        "dockerd was started before the toolkit was installed: restart docker.service",
    ),
    (r"unknown or invalid runtime name: nvidia", "dockerd has not loaded daemon.json: reload docker.service"),
    (r"port is already allocated|address already in use", "another process has the port: choose another"),
)
"""Regular expression on the last lines of output, and its hint; the first that matches counts."""


def hint_for(output: str) -> str | None:
    """The hint for the output of a failed command, or None."""
    return next((hint for pattern, hint in HINTS if re.search(pattern, output)), None)
