"""Sets of packages that are installed together, whatever the host's package manager is."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from debian.debian_support import Version

from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Permission, Planned, Resource, Signal, State
from provision.shell import constant

HOLDS = "shell/packages.sh"

VERBS = ("install", "upgrade", "downgrade", "repair")
"""What can happen to a package of a set."""

WEIGHT = ("downgrade", "upgrade", "repair", "install")
"""Which of several verbs names the change of the whole set; the first counts."""

SIGNS: Mapping[str, Literal["+", "-", "~"]] = {"install": "+", "downgrade": "-"}
"""The signs of changes of packages; any other action is ``~``."""


def moves_of(names: Sequence[str], verbs: Sequence[str] = VERBS) -> tuple[str, ...]:
    """What changes answer to in which one of these packages moves: ``package:NAME:VERB``."""
    return tuple(f"package:{name}:{verb}" for name in names for verb in verbs)


@dataclass(frozen=True)
class Package:
    """A package and its version: exact, a glob (``580.*``), or None for any that is not before ``least``."""

    name: str
    version: str | None = None
    least: str = ""

    def accepts(self, version: str) -> bool:
        """Whether an installed ``version`` is right."""
        if self.version is not None:
            return fnmatchcase(version, self.version)
        return not self.least or Version(version) >= Version(self.least)

    def is_newer_than(self, version: str) -> bool:
        """Whether an installed ``version``, which is not right, is older than what is wanted.

        For versions of digits, letters and dots rpm and dpkg agree on that.
        """
        wanted = (self.version or self.least).rpartition(":")[2].rstrip("*")
        return Version(wanted or "0") > Version(version.rpartition(":")[2])


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


def refuse_damaged_list(answer: Output) -> None:
    """Refuse a list of our holds that is not as we write it.

    :raises Refusal: naming it.
    """
    if str(answer.exit_code) == constant(HOLDS, "held_is_damaged"):
        file = constant(HOLDS, "held")
        raise Refusal(
            f"{file} is not as provision writes it: a line is no name of a package",
            hint=f"on the host: mv {file} {file}.damaged; then all holds count as yours",
        )


@dataclass(frozen=True)
class Move:
    """What has to happen to a package.

    :ivar verb: one of :data:`VERBS`.
    :ivar why: the rest of the sentence, with its comma where it needs one: ``from 570.1-1``.
    :ivar old: the versions that go.
    """

    package: Package
    verb: str
    why: str
    old: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """``NAME: upgrade from 570.1-1``."""
        return f"{self.package.name}: {self.verb}{self.why}"

    @property
    def diff(self) -> str:
        """The old versions and the new one, a line each."""
        gone = "".join(f"-{self.package.name} {old}\n" for old in self.old)
        new = self.package.version or (self.old[-1] if self.verb == "repair" else "(newest)")
        return f"{gone}+{self.package.name} {new}\n"


@dataclass(frozen=True)
class Simulation:
    """What the package manager says that it would do.

    :ivar removed: packages that would go, those that others make obsolete among them.
    :ivar held: packages that somebody else holds, and that would move.
    :ivar text: a line for each package, removals first; or why there is no answer.
    """

    removed: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    text: str = ""


def major(version: str) -> int:
    """The first number of a version, its epoch left out; -1 if it has none."""
    number = re.match(r"(?:\d+:)?(\d+)", version)
    return int(number[1]) if number else -1


def _approving(names: Sequence[str]) -> str:
    """Sh text that lets these packages be removed."""
    return f"may_remove={quote(' '.join(dict.fromkeys(names)))}\n" if names else ""


@dataclass(frozen=True)
class PackageSet(Resource[State]):
    """Packages that belong together: one transaction installs them, so versions stay in step.

    :cvar manager: the package manager, for messages.
    :cvar unheld: why a set changes in which no package moves.
    :cvar unhold: the command that ends a hold, for hints.
    :cvar joint: what joins name and version on its command line.
    :cvar checks: the shell functions that prove a package's version, its least version, and its hold.
    :cvar holder: the shell function that holds packages.
    :ivar name: what the set is called in plans.
    :ivar hold: hold them at their version, so that no upgrade of the system moves them.
    :ivar major: a major version that only a permission changes.
    :ivar why: reason for these packages and no others; shown where one of them moves.
    :ivar remarks: what an operator should know then, one line each.
    :ivar proof: sh text that succeeds when what was installed is what was asked for, beyond versions.
    :ivar signals: what it tells the handlers of other roles, by the verb of a package that moves; the empty
        verb is for every change of the set.
    :ivar replaces: packages that may be removed for it without a preview; :attr:`why` says so.
    :ivar shell: the files whose functions its change calls.
    :ivar along: globs of further packages that come with the set, and whose files have to be as they came.
    """

    name: str
    packages: tuple[Package, ...]
    hold: bool = True
    major: MajorVersion | None = None
    why: str = ""
    remarks: tuple[str, ...] = ()
    proof: str = ""
    signals: tuple[tuple[str, Signal], ...] = ()
    along: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    manager: ClassVar[str]
    unheld: ClassVar[str]
    unhold: ClassVar[str]
    joint: ClassVar[str]
    checks: ClassVar[tuple[str, str, str]]
    holder: ClassVar[str]

    @property
    def id(self) -> str:
        return f"packages:{self.name}"

    @property
    def leaves(self) -> tuple[str, ...]:
        kinds = ("package", "hold") if self.hold else ("package",)
        return tuple(f"{kind}:{package.name}" for kind in kinds for package in self.packages)

    @property
    def names(self) -> tuple[str, ...]:
        """Names and globs of all packages that count."""
        return (*(p.name for p in self.packages), *(self.major.others if self.major else ()))

    @abstractmethod
    def move(self, package: Package, state: State) -> Move | None:
        """What has to happen to a package that is missing or at another version."""

    @abstractmethod
    def held(self, package: Package, state: State) -> bool:
        """Whether a package is held as it has to be."""

    @abstractmethod
    def foreign_hold(self, package: Package, state: State) -> str:
        """The version at which somebody else holds a package; empty if nobody does."""

    @abstractmethod
    def versions(self, state: State) -> Iterable[tuple[str, str]]:
        """Name and version of what is installed of the set and of what tells its major version."""

    @abstractmethod
    def arguments(self, state: State, moves: Sequence[Move]) -> list[str]:
        """The arguments of the installation; empty if nothing is installed."""

    @abstractmethod
    def installation(self, arguments: Sequence[str], stream: str) -> list[str]:
        """The commands that install, and enable ``stream`` where it is not empty."""

    @abstractmethod
    def preview(self, arguments: Sequence[str], stream: str, planned: Planned) -> Probe:
        """Asks the package manager what the installation would do."""

    @abstractmethod
    def read_preview(self, answer: Output) -> Simulation:
        """Read the answer to :meth:`preview`."""

    def moves(self, state: State) -> list[Move]:
        """What has to happen to packages of the set."""
        return [move for package in self.packages if (move := self.move(package, state))]

    def selector(self, package: Package) -> str:
        """The package as the package manager's command line names it."""
        return package.name if package.version is None else f"{package.name}{self.joint}{package.version}"

    def switch(self, state: State) -> tuple[str, str]:  # noqa: ARG002
        """The module stream to enable, and why; both empty where there is none."""
        return "", ""

    def change(self, state: State, planned: Planned) -> Change | None:
        """Install what is missing or at another version, and hold what is not held.

        Its signals are ``package:NAME:VERB`` for every package that moves, and those of :attr:`signals`.

        :raises Refusal: if somebody else holds a package at another version.
        """
        moves = self.moves(state)
        loose = [p for p in self.packages if self.hold and not self.held(p, state)]
        stream, switch = self.switch(state)
        if not moves and not loose and not stream:
            return None
        self._refuse_foreign_holds(state, moves)
        verbs = [move.verb for move in moves]
        action = next((verb for verb in WEIGHT if verb in verbs), "switch" if stream else "hold")
        swap = self.major.change(self._majors(state)) if self.major and (moves or stream) else ""
        reasons = [swap, self.why, switch, *(move.reason for move in moves)]
        named = [f"module {stream}"] if stream else []
        named += [self.selector(p) for p in ([move.package for move in moves] or loose)]
        arguments = self.arguments(state, moves)
        return Change(
            resource=self.id,
            action=action,
            summary=f"{action} {' '.join(named)}",
            reason="; ".join(filter(None, reasons)) if moves or stream else self.unheld,
            diff="".join(move.diff for move in moves),
            sign=SIGNS.get(action, "~"),
            signals=(
                *(name for move in moves for name in moves_of((move.package.name,), (move.verb,))),
                *(signal.name for verb, signal in self.signals if not verb or verb in verbs),
            ),
            done=self._done(),
            script=_approving(self.replaces) + self._script(arguments, stream),
            needs=self.major.permission if self.major and swap else None,
            preview=self.preview(arguments, stream, planned) if arguments else None,
            reloads_systemd=True,
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Show what the package manager would do, and approve exactly the removals that it shows.

        :raises Refusal: if a package would move that somebody else holds.
        """
        simulation = self.read_preview(answer)
        if simulation.held:
            names = " ".join(simulation.held)
            raise Refusal(
                f"{names}: held by somebody, and {self.manager} would change it",
                hint=f"{self.unhold} {names}",
            )
        plain = change.script.removeprefix(_approving(self.replaces))
        approved = _approving((*self.replaces, *simulation.removed))
        return replace(change, simulation=simulation.text, script=approved + plain)

    def notes(self, state: State, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """The remarks, where a package moves."""
        return self.remarks if self.moves(state) else ()

    def proofs(self) -> list[str]:
        """The commands that prove versions."""
        exact, least, _ = self.checks
        return [
            f"{least} {words(p.name, p.least)}"
            if p.least and p.version is None
            else f"{exact} {words(p.name, p.version or '*')}"
            for p in self.packages
        ]

    def _refuse_foreign_holds(self, state: State, moves: Sequence[Move]) -> None:
        # A package that is only repaired stays at the version at which it is held.
        held = [(m.package, self.foreign_hold(m.package, state)) for m in moves if m.verb != "repair"]
        theirs = [(package, version) for package, version in held if version]
        if theirs:
            package, version = theirs[0]
            wanted = package.version or (f"{package.least} or later" if package.least else "another version")
            raise Refusal(
                f"{package.name} is held at {version} by somebody, wanted {wanted}",
                hint=f"{self.unhold} {' '.join(package.name for package, _ in theirs)}",
            )

    def _majors(self, state: State) -> set[int]:
        """The major versions that are installed, by the packages whose version tells."""
        kept = self.major.version if self.major else None
        silent = {p.name for p in self.packages if p.version is None or major(p.version) != kept}
        return {major(version) for name, version in self.versions(state) if name not in silent}

    def _done(self) -> str:
        holds = [f"{self.checks[2]} {quote(p.name)}" for p in self.packages] if self.hold else []
        return " && ".join(filter(None, [*self.proofs(), *holds, self.proof]))

    def _script(self, arguments: Sequence[str], stream: str) -> str:
        holds = [f"{self.holder} {words(*(p.name for p in self.packages))}"] if self.hold else []
        return " && ".join([*self.installation(arguments, stream), *holds])
