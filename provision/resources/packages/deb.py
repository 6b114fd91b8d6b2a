"""Debian packages at wanted versions, installed together and held."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from debian.debian_support import Version

from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, Change, Missing, Permission, Planned, Resource, Signal
from provision.resources.packages import apt
from provision.resources.packages.apt import HELD


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
class MajorVersion:
    """A major version that stays unless somebody allows another one.

    :ivar noun: what it is called (``branch``).
    :ivar others: names or globs of further packages whose version tells which one is installed, such as
        ``nvidia-utils-[0-9]*``; packages of the set with a version tell it anyway.
    :ivar permission: what a change to another one takes.
    """

    noun: str
    version: int
    others: tuple[str, ...]
    permission: Permission

    def change(self, installed: Iterable[int]) -> str:
        """``branch 570 → 580`` where another one is installed; empty otherwise."""
        old = sorted(set(installed) - {self.version})
        return f"{self.noun} {', '.join(map(str, old))} → {self.version}" if old else ""


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


APT = "shell/apt.sh"

State = Mapping[str, PackageState | Missing]
"""State of a set: of each of its packages, and of the other packages that tell the branch; by name."""


@dataclass(frozen=True)
class Packages(Resource[State]):
    """Packages that belong together: one apt-get run installs them, so versions stay in step.

    :ivar name: what the set is called in plans.
    :ivar hold: mark them held, so that no upgrade of the system moves them.
    :ivar major: a major version that only a permission changes.
    :ivar why: reason for these packages and no others; shown where one of them moves.
    :ivar remarks: what an operator should know then, one line each.
    :ivar proof: sh text that succeeds when what was installed is what was asked for, beyond versions.
    :ivar signals: what it tells the handlers of other roles, by the verb of a package that moves; the empty verb
        is for every change of the set.
    :ivar shell: the files whose functions its change calls.
    """

    name: str
    packages: tuple[Package, ...]
    hold: bool = True
    major: MajorVersion | None = None
    why: str = ""
    remarks: tuple[str, ...] = ()
    proof: str = ""
    signals: tuple[tuple[str, Signal], ...] = ()
    shell: tuple[str, ...] = (APT,)
    kind: ClassVar[str] = "packages"

    @property
    def id(self) -> str:
        """``packages:NAME``."""
        return f"packages:{self.name}"

    @classmethod
    def probe(cls, resources: Sequence[Packages]) -> Probe:
        """Ask dpkg for every package of every set at once."""
        names = sorted({n for r in resources for n in r.names()})
        form = r"${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n"
        # dpkg-query fails when it does not know one of the names; what it knows is printed all the same.
        return Probe(
            "packages",
            f"dpkg --print-architecture; cat {HELD} 2>/dev/null; echo\n"
            f"dpkg-query -W -f {quote(form)} {words(*names)}",
        )

    @classmethod
    def states(cls, resources: Sequence[Packages], answer: Output) -> Mapping[str, State]:
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

    def bare(self) -> State:
        """No package is installed."""
        return {p.name: ABSENT for p in self.packages}

    def names(self) -> tuple[str, ...]:
        """Names and globs of all packages that count."""
        return (*(p.name for p in self.packages), *(self.major.others if self.major else ()))

    def _own(self, known: Mapping[str, PackageState]) -> State:
        globs = self.major.others if self.major else ()
        others = {n: s for n, s in known.items() if any(fnmatchcase(n, glob) for glob in globs)}
        return {**others, **{p.name: known.get(p.name, ABSENT) for p in self.packages}}

    def change(self, state: State, planned: Planned) -> Change | None:
        """Install what is missing or at another version, and hold what is not held.

        Its signals are ``package:NAME:VERB`` for every package that moves.

        :raises Refusal: if somebody else holds a package at another version.
        """
        moves = {p: _move(p, state[p.name]) for p in self.packages}
        moved = [p for p in self.packages if moves[p]]
        loose = [p for p in self.packages if self.hold and not _held(state[p.name])]
        if not moved and not loose:
            return None
        refuse_foreign_holds({p.name: (state[p.name], p.version) for p in moved}, "apt-mark unhold {}")
        verbs = {_verb(move) for move in moves.values() if move}
        action = next((v for v in ("downgrade", "upgrade", "repair", "install") if v in verbs), "hold")
        swap = self.major.change(self._majors(state)) if self.major and moved else ""
        reasons = [*filter(None, (swap, self.why)), *(f"{p.name}: {moves[p]}" for p in moved)]
        argv = _argv(action, moved)
        return Change(
            resource=self.id,
            action=action,
            summary=f"{action} " + " ".join(p.selector for p in moved or loose),
            reason="; ".join(reasons) if moved else "not held",
            diff="".join(_line(p, state[p.name]) for p in moved),
            sign=SIGNS.get(action, "~"),
            signals=(
                *(f"package:{p.name}:{_verb(moves[p])}" for p in moved),
                *told(self.signals, verbs),
            ),
            done=self._done(),
            script=self._script(argv if moved else ()),
            needs=self.major.permission if self.major and swap else None,
            preview=Probe("", apt.simulate(argv, planned)) if moved else None,
            reloads_systemd=True,
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Show what apt-get would do, and approve exactly the removals that it shows.

        :raises Refusal: if a package would move that somebody else holds.
        """
        found = apt.read(answer.out, ok=answer.ok)
        if found.held:
            names = " ".join(found.held)
            raise Refusal(
                f"{names}: held by somebody, and apt would change it", hint=f"apt-mark unhold {names}"
            )
        approved = f"may_remove={quote(' '.join(found.removed))}\n" if found.removed else ""
        return replace(change, simulation=found.text, script=approved + change.script)

    def notes(self, state: State, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """The remarks, where a package moves."""
        return self.remarks if any(_move(p, state[p.name]) for p in self.packages) else ()

    def _majors(self, state: State) -> set[int]:
        """The major versions that are installed, by the packages whose version tells."""
        kept = self.major.version if self.major else None
        silent = {p.name for p in self.packages if p.version is None or major(p.version) != kept}
        return {major(s.version) for n, s in state.items() if n not in silent and not isinstance(s, Missing)}

    def _done(self) -> str:
        checks = [f"package_is {words(p.name, p.version or '*')}" for p in self.packages]
        if self.hold:
            checks += [f"package_held {quote(p.name)}" for p in self.packages]
        return " && ".join(checks + ([self.proof] if self.proof else []))

    def _script(self, argv: Sequence[str]) -> str:
        lines = [f"apt_install {words(*argv)}"] if argv else []
        if self.hold:
            lines.append(f"hold_packages {words(*(p.name for p in self.packages))}")
        return " && ".join(lines)


def major(version: str) -> int:
    """The first number of a version, its epoch left out; -1 if it has none."""
    found = re.match(r"(?:\d+:)?(\d+)", version)
    return int(found[1]) if found else -1


SIGNS: Mapping[str, Literal["+", "-", "~"]] = {"install": "+", "downgrade": "-"}
"""The signs of changes of packages; any other action is ``~``."""


def told(signals: Iterable[tuple[str, Signal]], verbs: Iterable[str]) -> tuple[str, ...]:
    """The names of the signals for these verbs, and of those for every change."""
    return tuple(signal.name for verb, signal in signals if not verb or verb in verbs)


def refuse_foreign_holds(moved: Mapping[str, tuple[PackageState | Missing, str | None]], unhold: str) -> None:
    """Leave alone what somebody else holds.

    :param moved: state and wanted version by name.
    :param unhold: the command that ends a hold, with ``{}`` for the package.
    :raises Refusal: naming package and version.
    """
    for name, (state, wanted) in moved.items():
        if isinstance(state, PackageState) and state.held and not state.ours:
            raise Refusal(
                f"{name} is held at {state.version} by somebody, wanted {wanted or 'it repaired'}",
                hint=unhold.format(name),
            )


def _argv(action: str, moved: Sequence[Package]) -> list[str]:
    """The arguments of ``apt-get install``. Only packages that move are named."""
    flags = ["--allow-downgrades"] if action == "downgrade" else []
    return [*flags, "--", *(p.selector for p in moved)]


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
