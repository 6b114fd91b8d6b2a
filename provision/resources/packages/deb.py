"""Debian packages at wanted versions, installed together and held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from debian.debian_support import Version

from provision.probe import Output, Probe, words
from provision.resource import ABSENT, Missing, Planned
from provision.resources.packages import apt
from provision.resources.packages.sets import Move, Package, PackageSet, Simulation

APT = "shell/apt.sh"


@dataclass(frozen=True)
class PackageState:
    """What dpkg knows of a package. ``status`` is ``installed`` unless something was interrupted.

    :ivar held: whether it is on hold.
    :ivar ours: whether that hold is ours.
    """

    version: str
    status: str
    held: bool
    ours: bool = True


DebState = Mapping[str, PackageState | Missing]
"""State of a set: of each of its packages, and of the other packages that tell the major version; by name."""


@dataclass(frozen=True)
class Packages(PackageSet[DebState]):
    """Packages that one apt-get run installs."""

    shell: tuple[str, ...] = (APT,)
    kind: ClassVar[str] = "packages"
    manager: ClassVar[str] = "apt"
    unheld: ClassVar[str] = "not held"
    unhold: ClassVar[str] = "apt-mark unhold"
    checks: ClassVar[tuple[str, str]] = ("package_is", "package_held")
    holder: ClassVar[str] = "hold_packages"

    @classmethod
    def probe(cls, resources: Sequence[Packages]) -> Probe:
        """Ask dpkg for every package of every set at once."""
        names = sorted({name for r in resources for name in r.names})
        return Probe("packages", words("deb_states", *names), ("shell/apt_state.sh",))

    @classmethod
    def states(cls, resources: Sequence[Packages], answer: Output) -> Mapping[str, DebState]:
        """For each set, the state of its packages by name.

        :raises ValueError: if dpkg-query itself failed.
        """
        if answer.exit_code not in (0, 1):
            raise ValueError(f"dpkg-query: exit {answer.exit_code}: {answer.err.strip()}")
        head, _, rows = answer.out.partition("\n\n")
        native, *ours = head.split("\n")
        known: dict[str, PackageState] = {}
        for line in rows.splitlines():
            name, architecture, version, status, want = line.split("\t")
            if status not in ("not-installed", "config-files") and architecture in (native, "all"):
                known[name] = PackageState(version, status, want == "hold", ours=name in ours)
        return {r.id: r._own(known) for r in resources}

    def _own(self, known: Mapping[str, PackageState]) -> DebState:
        globs = self.major.others if self.major else ()
        others = {n: s for n, s in known.items() if any(fnmatchcase(n, glob) for glob in globs)}
        return {**others, **{p.name: known.get(p.name, ABSENT) for p in self.packages}}

    def bare(self) -> DebState:
        return {p.name: ABSENT for p in self.packages}

    def moves(self, state: DebState) -> list[Move]:
        """What has to happen to packages that are missing or at another version, or that dpkg left undone."""
        moves = (_move(package, state[package.name]) for package in self.packages)
        return [move for move in moves if move]

    def held(self, package: Package, state: DebState) -> bool:
        """Whether it is on hold, whoever wanted that."""
        now = state[package.name]
        return not isinstance(now, Missing) and now.held

    def foreign_hold(self, package: Package, state: DebState) -> str:
        """The version at which somebody else holds a package; empty if nobody does."""
        now = state[package.name]
        return now.version if isinstance(now, PackageState) and now.held and not now.ours else ""

    def versions(self, state: DebState) -> Iterable[tuple[str, str]]:
        """Name and version of what is installed."""
        return ((name, now.version) for name, now in state.items() if isinstance(now, PackageState))

    def selector(self, package: Package) -> str:
        """``NAME=VERSION``."""
        return package.name if package.version is None else f"{package.name}={package.version}"

    def arguments(self, state: DebState, action: str, moves: Sequence[Move]) -> list[str]:  # noqa: ARG002
        """Those of ``apt-get install``. Only packages that move are named."""
        flags = ["--allow-downgrades"] if action == "downgrade" else []
        return [*flags, "--", *(self.selector(move.package) for move in moves)] if moves else []

    def installation(self, arguments: Sequence[str], stream: str) -> list[str]:  # noqa: ARG002
        """One run of apt-get."""
        return [f"apt_install {words(*arguments)}"] if arguments else []

    def preview(self, arguments: Sequence[str], stream: str, planned: Planned) -> Probe:  # noqa: ARG002
        """Ask apt-get."""
        return apt.preview(arguments, planned)

    def read_preview(self, answer: Output) -> Simulation:
        """Read apt-get's answer."""
        return apt.read(answer.out, ok=answer.ok)


def _move(package: Package, state: PackageState | Missing) -> Move | None:
    if isinstance(state, Missing):
        return Move(package, "install", ", it is not installed")
    old = (state.version,)
    if state.status != "installed":
        return Move(package, "repair", f", dpkg left it {state.status}", old)
    if package.accepts(state.version):
        return None
    newer = Version((package.version or "").rstrip("*") or "0") > Version(state.version)
    return Move(package, "upgrade" if newer else "downgrade", f" from {state.version}", old)
