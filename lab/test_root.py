"""A root file system with the programs that tests need, so that this machine gets none of them.

It is an overlay: packages are installed into a folder of the cache, above the machine's own file system, and
tests run with it as their root. A server among the packages is never enabled here, and never started by apt.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.layout import STATE_ROOT, cache_root
from lab.prerequisites import PACKAGES, unfit

TOOLS = (
    "openssh-server",
    "openssh-client",
    "sudo",
    "shellcheck",
    "gpg",
    "gpg-agent",
    "busybox",
    "strace",
    "systemd",
    "dnf",
    "rpm",
    "createrepo-c",
    "dnf-plugins-core",
    "cloud-init",
    "netplan.io",
    "debconf",
)
"""Debian packages that tests run programs of, the lab's own aside."""

DPKG_STATUS = Path("/var/lib/dpkg/status")

ENTER = """\
root=$1 where=$PWD && shift
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/root" || exit 77
for folder in /proc /sys /dev /run /tmp "$@"; do
  [ "$folder" != -- ] || break
  mkdir -p "$folder" "$root/root$folder" && mount --rbind "$folder" "$root/root$folder" || exit 77
done
while [ "$1" != -- ]; do shift; done
shift
# More than chroot: lab hosts, and what enters their namespaces, start from the root of the namespace.
cd "$root/root" && pivot_root . . && umount -l . && exec env --chdir="$where" "$@"
"""
"""Mounts the root $1 with the folders up to ``--`` as this machine has them, and runs the rest in it, in the
folder where it is called."""

INSTALL = """\
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d &&
  apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"
"""


def command(argv: Sequence[str], folders: Sequence[Path], say: Callable[[str], None]) -> list[str]:
    """The command that runs ``argv`` with the tests' root, which is made first where it is missing or old.

    Where this machine cannot have one, that is ``argv`` itself: tests then skip what they lack, and say so.

    :param folders: what is seen, and written, as this machine has it.
    :param say: is told why there is none where there should be one.
    """
    if unfit() or shutil.which("unshare") is None:
        return list(argv)
    root = cache_root() / "test-root"
    if lacks := _make(root, say):
        say(f"the programs that tests need cannot be installed, so some tests are skipped: {lacks}")
        return list(argv)
    return _entered(root, [cache_root(), STATE_ROOT, *folders], argv)


def _make(root: Path, say: Callable[[str], None]) -> str:
    """Make the root unless it is there and right; why that is not possible, or nothing."""
    packages = sorted({*TOOLS, *PACKAGES.values()})
    stamp, about = root / "stamp", hashlib.sha256(DPKG_STATUS.read_bytes() + " ".join(packages).encode())
    if stamp.exists() and stamp.read_text("ascii") == about.hexdigest():
        return ""
    say(f"installing the programs that tests need into {root}; this machine stays as it is")
    shutil.rmtree(root, ignore_errors=True)
    for name in ("upper", "work", "root"):
        (root / name).mkdir(parents=True)
    argv = _entered(root, [], ["/bin/sh", "-c", INSTALL, "install", *packages])
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode:
        return " ".join((done.stderr or done.stdout).strip().splitlines()[-3:]) or f"exit {done.returncode}"
    stamp.write_text(about.hexdigest(), "ascii")
    return ""


def _entered(root: Path, folders: Sequence[Path], argv: Sequence[str]) -> list[str]:
    shared = [str(folder) for folder in folders]
    return ["unshare", "--mount", "sh", "-c", ENTER, "enter", str(root), *shared, "--", *argv]
