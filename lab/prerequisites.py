"""The programs that the lab is made with, and how they get onto this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lab.execute import execute
from provision.errors import UsageError

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "apt-ftparchive": "apt-utils",
    "gpg": "gpg",
    "gpg-agent": "gpg-agent",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "setsid": "util-linux",
    "nsenter": "util-linux",
    "dpkg-deb": "dpkg",
}
"""Program → the Debian package that has it."""

LIBEXEC = ("/usr/lib/gnupg",)


INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHERS = 8192
"""Inotify instances for root: systemd and dockerd take some ten a host, and all hosts share the machine's."""


def unfit() -> str | None:
    """Why this machine cannot hold a lab; None when it can."""
    if os.geteuid() != 0:
        return "the lab needs root: its hosts are booted with systemd-nspawn"
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        return "the lab needs Debian: its hosts are made with mmdebstrap from the machine's own apt sources"
    return None


def missing() -> list[str]:
    """Packages whose programs are not here."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/bin"])
    return sorted(
        {
            package
            for program, package in PACKAGES.items()
            if shutil.which(program, path=search) is None
            and not any(Path(folder, program).exists() for folder in LIBEXEC)
        }
    )


def ensure(say: Callable[[str], None]) -> None:
    """Install what is missing.

    :raises UsageError: this machine cannot hold a lab, or a package cannot be installed.
    """
    wanted = missing()
    hint = f"apt-get install {' '.join(wanted)}" if wanted else None
    if (reason := unfit()) is not None:
        raise UsageError(reason, hint=hint)
    _allow_watchers()
    if not wanted:
        return
    say(f"installing {', '.join(wanted)}")
    execute("apt-get", "update")
    execute(
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        *wanted,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if still := missing():
        raise UsageError(f"packages are missing: {', '.join(still)}", hint=hint)


def _allow_watchers() -> None:
    """Raise the machine's limit where it would end with "Too many open files" on hosts."""
    if int(INOTIFY.read_text(encoding="ascii")) < WATCHERS:
        INOTIFY.write_text(f"{WATCHERS}\n", encoding="ascii")
