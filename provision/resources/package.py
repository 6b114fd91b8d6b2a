"""Debian packages at wanted versions, installed together and held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from debian.debian_support import Version

from provision.command import Output, Probe, quote, words
from provision.resources.base import ABSENT, Change, Missing, Planned, Resource


@dataclass(frozen=True)
class Package:
    """A package and the version it must have: exact, a glob (``580.*``), or None for any."""

    name: str
    version: str | None = None

    def accepts(self, version: str) -> bool:
        """Whether an installed ``version`` is right."""
        return self.version is None or fnmatchcase(version, self.version)

    @property
    def selector(self) -> str:
        """The package as apt-get's command line names it."""
        return self.name if self.version is None else f"{self.name}={self.version}"


@dataclass(frozen=True)
class PackageState:
    """What dpkg knows of a package. ``status`` is ``installed`` unless something was interrupted."""

    version: str
    status: str
    held: bool


@dataclass(frozen=True)
class Packages(Resource):
    """Packages that belong together: one apt-get run installs them, so versions stay in step.

    :ivar name: what the set is called in plans.
    :ivar hold: mark them held, so that no upgrade of the system moves them.
    """

    name: str
    packages: tuple[Package, ...]
    hold: bool = True
    kind: ClassVar[str] = "packages"

    @property
    def id(self) -> str:
        """``packages:NAME``."""
        return f"packages:{self.name}"

    @classmethod
    def probe(cls, resources: Sequence[Packages]) -> Probe:
        """Ask dpkg for every package of every set at once."""
        names = sorted({p.name for r in resources for p in r.packages})
        form = r"${Package}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n"
        # dpkg-query fails when it does not know one of the names; what it knows is printed all the same.
        return Probe("packages", f"dpkg-query -W -f {quote(form)} {words(*names)}")

    @classmethod
    def states(
        cls, resources: Sequence[Packages], answer: Output
    ) -> Mapping[str, Mapping[str, PackageState | Missing]]:
        """For each set, the state of its packages by name.

        :raises ValueError: if dpkg-query itself failed.
        """
        if answer.exit_code not in (0, 1):
            raise ValueError(f"dpkg-query: exit {answer.exit_code}: {answer.err.strip()}")
        known: dict[str, PackageState] = {}
        for line in answer.out.splitlines():
            name, version, status, want = line.split("\t")
            if status not in ("not-installed", "config-files"):
                known[name] = PackageState(version, status, want == "hold")
        return {r.id: {p.name: known.get(p.name, ABSENT) for p in r.packages} for r in resources}

    def change(self, state: Mapping[str, PackageState | Missing], planned: Planned) -> Change | None:  # noqa: ARG002
        """Install what is missing or at another version, and hold what is not held.

        Its signals are ``package:NAME:VERB`` for every package that moves.
        """
        moves = {p: _move(p, state[p.name]) for p in self.packages}
        moved = [p for p in self.packages if moves[p]]
        loose = [p for p in self.packages if self.hold and not _held(state[p.name])]
        if not moved and not loose:
            return None
        verbs = {_verb(move) for move in moves.values() if move}
        action = next((v for v in ("downgrade", "upgrade", "repair", "install") if v in verbs), "hold")
        return Change(
            resource=self.id,
            action=action,
            summary=f"{action} " + " ".join(p.selector for p in moved or loose),
            reason="; ".join(f"{p.name}: {moves[p]}" for p in moved) or "not held",
            diff="".join(_line(p, state[p.name]) for p in moved),
            signals=tuple(f"package:{p.name}:{_verb(moves[p])}" for p in moved),
            done=self._done(),
            script=self._script(action, moved),
        )

    def _done(self) -> str:
        checks = [f"package_is {words(p.name, p.version or '*')}" for p in self.packages]
        if self.hold:
            checks += [f"package_held {quote(p.name)}" for p in self.packages]
        return " && ".join(checks)

    def _script(self, action: str, moved: Sequence[Package]) -> str:
        lines = []
        if moved:
            flags = ["--allow-downgrades"] if action == "downgrade" else []
            # Only packages of this set are unheld, and only those that move.
            lines.append(f"apt_install {words(*flags)} -- {words(*(p.selector for p in moved))}")
        if self.hold:
            lines.append(f"apt-mark hold {words(*(p.name for p in self.packages))}")
        return " && ".join(lines)


def _held(state: PackageState | Missing) -> bool:
    return not isinstance(state, Missing) and state.held


def _move(package: Package, state: PackageState | Missing) -> str:
    """What has to happen to a package, in words that begin with a verb; empty if it is right."""
    if isinstance(state, Missing):
        return "install, it is not installed"
    if state.status != "installed":
        return f"repair, dpkg left it {state.status}"
    if package.accepts(state.version):
        return ""
    wanted = (package.version or "").rstrip("*") or "0"
    verb = "upgrade" if Version(wanted) > Version(state.version) else "downgrade"
    return f"{verb} from {state.version}"


def _verb(move: str) -> str:
    return move.partition(" ")[0].rstrip(",")


def _line(package: Package, state: PackageState | Missing) -> str:
    old = "" if isinstance(state, Missing) else f"-{package.name} {state.version}\n"
    return f"{old}+{package.name} {package.version or '(newest)'}\n"
