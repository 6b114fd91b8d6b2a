"""Bare root file systems, one a Debian suite, and the packages that their mirror offers."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.execute import execute
from lab.layout import STATE_ROOT
from provision.errors import UsageError

HERE = Path(__file__).parent

BASE = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
)
"""What a minimal server has besides Debian's essential packages."""

_EVERYWHERE = (
    *(
        "docker.io",
        "tini",
        "iptables",
        "ca-certificates",
        "pciutils",
        "kmod",
        "unattended-upgrades",
        "chrony",
    ),
    *("hello", "tree"),
)
MIRROR = {"bookworm": _EVERYWHERE, "trixie": (*_EVERYWHERE, "docker-cli")}
"""Suite → packages that its mirror offers, with all that they depend on; hello and tree are for tests."""


@dataclass(frozen=True)
class Rootfs:
    """A cached bare system.

    :param suite: Debian's name for the release.
    :param root: the root file system; never written to once it is made.
    :param debs: the packages that hosts of this suite can install.
    """

    suite: str
    root: Path
    debs: Path


def build_rootfs(suite: str, cache: Path, say: Callable[[str], None]) -> Rootfs:
    """The bare system of a suite, made when the cache has none by the present recipe.

    :raises UsageError: no such suite, or the machine has no apt source for Debian.
    """
    if suite not in MIRROR:
        raise UsageError(f"the lab knows no Debian suite {suite!r}", hint=f"known: {', '.join(MIRROR)}")
    place = cache / "rootfs" / f"{suite}-{_recipe(suite)}"
    made = Rootfs(suite, place / "root", place / "debs")
    if not place.exists():
        say(f"making a bare Debian {suite} (once, less than a minute)")
        fresh = cache / "rootfs" / f".{suite}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _mmdebstrap(suite, fresh)
        fresh.rename(place)
    _prune(place)
    return made


def _recipe(suite: str) -> str:
    seen = hashlib.sha256(repr((suite, BASE, MIRROR[suite])).encode())
    for script in ("bare.sh", "download.sh"):
        seen.update((HERE / script).read_bytes())
    return seen.hexdigest()[:12]


def _prune(kept: Path) -> None:
    """Remove older systems of the same suite that no lab has hosts on."""
    suite = kept.name.rpartition("-")[0]
    labs = "".join(state.read_text(encoding="utf-8") for state in STATE_ROOT.glob("*/state.json"))
    for old in kept.parent.glob(f"{suite}-*"):
        if old != kept and f"{old}/" not in labs:
            shutil.rmtree(old)


def _mmdebstrap(suite: str, folder: Path) -> None:
    debs = (
        shlex.join([str(HERE / "download.sh")])
        + ' "$1" '
        + shlex.join([str(folder / "debs"), *MIRROR[suite]])
    )
    (folder / "sources.list").write_text(
        "".join(f"{line}\n" for line in apt_sources(suite)), encoding="utf-8"
    )
    execute(
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        f"--include={','.join(BASE)}",
        '--aptopt=Acquire::Languages "none"',
        *own_proxies(),
        f"--customize-hook=sh {debs}",
        f'--customize-hook=sh {shlex.quote(str(HERE / "bare.sh"))} "$1"',
        suite,
        str(folder / "root"),
        str(folder / "sources.list"),
        # The tools of a login shell's PATH, whatever ours is.
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
    )


def own_proxies() -> list[str]:
    """Options of mmdebstrap with the proxies of this machine's apt."""
    shown = execute("apt-config", "dump", "--format", '%f "%v";%n', "Acquire::http::Proxy").stdout
    return [f"--aptopt={proxy}" for proxy in shown.split("\n") if proxy.endswith('";') and '""' not in proxy]


def apt_sources(suite: str) -> list[str]:
    """One-line apt sources for a suite, from where this machine itself gets Debian.

    :raises UsageError: the machine has no apt source for Debian.
    """
    own = platform.freedesktop_os_release()["VERSION_CODENAME"]
    lines = _debian_sources(own)
    if not lines:
        execute("apt-get", "update")
        lines = _debian_sources(own)
    if not lines:
        raise UsageError(
            "no apt source for Debian's main component on this machine", hint="see /etc/apt/sources.list.d"
        )
    return [line.replace(f" {own}", f" {suite}") for line in lines]


def _debian_sources(codename: str) -> list[str]:
    """Needs apt's lists: only Release files say which source is Debian's own."""
    wanted = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(SIGNED_BY)"
    found: list[str] = []
    for row in execute(
        "apt-get", "indextargets", "--format", wanted, "Created-By: Packages"
    ).stdout.splitlines():
        uri, release, component, origin, signed_by = row.split("|", 4)
        if origin == "Debian" and component == "main" and release.partition("-")[0] == codename:
            key = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            found.append(f"deb {key}{uri} {release} main")
    return found
