"""Debian's archive with all its components, seen by an apt of its own: this machine's stays as it is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.execute import execute
from lab.rootfs import Rootfs, apt_sources

COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")

CONFIGURATION = """\
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "{folder}/preferences";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Lists "{folder}/state/lists";
Dir::State::Status "{folder}/status";
Dir::State::Extended_States "{folder}/state/extended_states";
Dir::Cache "{folder}/cache";
Dir::Cache::Archives "{folder}/cache/archives";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""


@dataclass(frozen=True)
class Archive:
    """Debian's archive as a host of one suite sees it, from where this machine itself gets Debian.

    :ivar folder: everything that this apt reads and writes.
    """

    suite: str
    folder: Path

    @staticmethod
    def open(suite: str, folder: Path, installed: str = "") -> Archive:
        """Fetch the indexes.

        :param installed: dpkg's status of a host; by default nothing is installed on it.
        :raises ProvisionError: apt cannot fetch them.
        """
        for place in ("state/lists/partial", "cache/archives/partial"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        components = " ".join(COMPONENTS)
        sources = [f"{line.removesuffix('main')}{components}\n" for line in apt_sources(suite)]
        (folder / "sources.list").write_text("".join(sources), "utf-8")
        (folder / "status").write_text(installed, "utf-8")
        (folder / "preferences").write_text("", "utf-8")
        (folder / "apt.conf").write_text(CONFIGURATION.format(folder=folder), "utf-8")
        archive = Archive(suite, folder)
        archive._apt("apt-get", "-q", "update")
        return archive

    def components(self) -> set[str]:
        """The components that the mirror has; apt leaves out the others with no more than a warning."""
        rows = self._apt(
            "apt-get", "indextargets", "--format", "$(COMPONENT) $(FILENAME)", "Created-By: Packages"
        )
        return {row.split(" ", 1)[0] for row in rows.splitlines()}

    def versions(self, package: str) -> list[str]:
        """The versions of a package that there are, the newest first."""
        rows = self._apt("apt-cache", "madison", package)
        return [row.split("|")[1].strip() for row in rows.splitlines()]

    def resolve(self, *packages: str, preferences: str = "") -> dict[str, str]:
        """What ``apt-get install`` would bring, and in which version.

        :param preferences: pins, as in apt_preferences(5).
        :raises ProvisionError: nothing, as apt cannot resolve it.
        """
        (self.folder / "preferences").write_text(preferences, "utf-8")
        said = self._apt("apt-get", "-s", "-q", "install", "--no-install-recommends", "--", *packages)
        return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", said, re.MULTILINE))

    def download(self, packages: Sequence[str], into: Path, preferences: str = "") -> None:
        """Fetch packages with all that they depend on and that is not installed."""
        (self.folder / "preferences").write_text(preferences, "utf-8")
        self._apt(
            "apt-get", "-q", "-y", "--download-only", "install", "--no-install-recommends", "--", *packages
        )
        into.mkdir(parents=True, exist_ok=True)
        for deb in (self.folder / "cache/archives").glob("*.deb"):
            deb.replace(into / deb.name)

    def _apt(self, *argv: str) -> str:
        environment = {
            **os.environ,
            "APT_CONFIG": str(self.folder / "apt.conf"),
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
        }
        return execute(*argv, env=environment).stdout


def with_packages(system: Rootfs, cache: Path, selectors: Sequence[str], preferences: str) -> Rootfs:
    """A bare system whose mirror has more of Debian's archive, at the versions of the day it was fetched.

    :param selectors: packages as apt-get's command line names them; what they depend on comes with them.
    :param preferences: pins, as in apt_preferences(5).
    """
    seen = hashlib.sha256(repr((str(system.root), sorted(selectors), preferences)).encode())
    place = cache / "archive" / f"{system.suite}-{seen.hexdigest()[:12]}"
    if not place.exists():
        fresh = place.with_name(f".{system.suite}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        installed = (system.root / "var/lib/dpkg/status").read_text("utf-8")
        archive = Archive.open(system.suite, fresh / "apt", installed)
        archive.download(selectors, fresh / "debs", preferences)
        shutil.rmtree(fresh / "apt")
        for deb in system.debs.glob("*.deb"):
            if not (link := fresh / "debs" / deb.name).exists():
                os.link(deb, link)
        for old in place.parent.glob(f"{system.suite}-*"):
            shutil.rmtree(old)
        fresh.rename(place)
    return Rootfs(system.suite, system.root, place / "debs")
