"""Debian packages at wanted versions, installed together and held; and what apt-get would do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from debian.debian_support import Version

from provision.errors import Refusal
from provision.probe import Output, Probe, words
from provision.resource import ABSENT, Change, Missing, Planned
from provision.resources.file import File
from provision.resources.packages.sets import Move, Package, PackageSet, Simulation, refuse_damaged_list
from provision.shell import constant

APT = "shell/apt.sh"
STATE = "shell/apt_state.sh"

NOT_YET = re.compile(
    r"Unable to locate package|Version '.*' for '.*' was not found|no installation candidate"
)
"""What apt-get says where an earlier step of the plan, or a fresh index, has to come first."""

LINE = re.compile(
    r"(?P<verb>Inst|Remv) (?P<name>\S+)(?: \[(?P<old>[^] ]+)\])?(?: \((?P<new>\S+) [^)]*\))?", re.ASCII
)
"""``Inst a [1] (2 Debian:12 [amd64])`` or ``Remv a [1]`` of apt-get(8) --simulate."""


@dataclass(frozen=True)
class PackageState:
    """What dpkg knows of a package. ``status`` is ``installed`` unless something was interrupted.

    :ivar held: whether it is on hold.
    :ivar ours: whether that hold is ours.
    :ivar damaged: its files that are gone, or have other content than they came with.
    """

    version: str
    status: str
    held: bool
    ours: bool = True
    damaged: tuple[str, ...] = ()


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
    joint: ClassVar[str] = "="
    checks: ClassVar[tuple[str, str, str]] = ("package_is", "package_at_least", "package_held")
    holder: ClassVar[str] = "hold_packages"

    @classmethod
    def probe(cls, resources: Sequence[Packages]) -> Probe:
        """Ask dpkg for every package of every set at once."""
        names = sorted({name for r in resources for name in (*r.names, *r.whole)})
        script = words("deb_states", *names)
        return Probe("packages", script, (STATE,), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Packages], answer: Output) -> Mapping[str, DebState]:
        """For each set, the state of its packages by name.

        :raises ValueError: if dpkg-query itself failed.
        :raises Refusal: if it prints without end, or our list of holds is damaged.
        """
        refuse_damaged_list(answer)
        if str(answer.exit_code) == constant(STATE, "no_dpkg"):
            raise Refusal(
                f"dpkg-query prints too much: more than {constant(STATE, 'most_known')} bytes, or no list",
                hint="on the host: type -a dpkg-query shows which programs answer; Debian's is in /usr/bin",
            )
        if answer.exit_code not in (0, 1):
            raise ValueError(f"dpkg-query: exit {answer.exit_code}: {answer.err.strip()}")
        head, _, text = f"\n{answer.out}".partition("\n\n")
        ours = head.split("\n")
        rows = [line.split("\t") for line in text.splitlines()]
        native = next((row[1] for row in rows if row[0] == "dpkg"), None)
        if native is None:
            raise ValueError(f"dpkg-query does not know dpkg: {answer.err.strip()}")
        whole = [glob for r in resources for glob in r.whole]
        damaged: dict[str, dict[str, None]] = {}  # in order; a glob may name a package once more
        for _, package, path in (row for row in rows if row[0] == "damaged"):
            name, _, architecture = package.partition(":")
            if architecture in ("", native) and any(fnmatchcase(name, glob) for glob in whole):
                damaged.setdefault(name, {})[path] = None
        known: dict[str, PackageState] = {}
        for package, architecture, version, status, want in (row for row in rows if row[0] != "damaged"):
            name = package.partition(":")[0]
            if status not in ("not-installed", "config-files") and architecture in (native, "all"):
                known[name] = PackageState(
                    version, status, want == "hold", name in ours, tuple(damaged.get(name, ()))
                )
        declared = {p.name for r in resources for p in r.packages}
        return {r.id: r._own(known, declared) for r in resources}

    @property
    def whole(self) -> tuple[str, ...]:
        """Names and globs of the packages whose files have to be as they came."""
        return (*(package.name for package in self.packages), *self.along)

    def _own(self, known: Mapping[str, PackageState], declared: Collection[str]) -> DebState:
        others = {n: s for n, s in known.items() if self._tells_major(n)}
        others |= {
            name: now
            for name, now in known.items()
            if now.damaged and name not in declared and any(fnmatchcase(name, glob) for glob in self.along)
        }
        return {**others, **{p.name: known.get(p.name, ABSENT) for p in self.packages}}

    def bare(self) -> DebState:
        return {p.name: ABSENT for p in self.packages}

    def move(self, package: Package, state: DebState) -> Move | None:
        """What has to happen to a package that is missing or at another version, or that dpkg left undone."""
        now = state[package.name]
        if isinstance(now, Missing):
            return Move(package, "install", ", it is not installed")
        old = (now.version,)
        if now.status != "installed":
            return Move(package, "repair", f", dpkg left it {now.status}", old)
        if package.accepts(now.version):
            return Move(package, "repair", _damage(now.damaged), old) if now.damaged else None
        verb = "upgrade" if package.is_newer_than(now.version) else "downgrade"
        return Move(package, verb, f" from {now.version}", old)

    def held(self, package: Package, state: DebState) -> bool:
        """Whether it is on hold, whoever wanted that."""
        now = state[package.name]
        return not isinstance(now, Missing) and now.held

    def foreign_hold(self, package: Package, state: DebState) -> str:
        now = state[package.name]
        return now.version if isinstance(now, PackageState) and now.held and not now.ours else ""

    def versions(self, state: DebState) -> Iterable[tuple[str, str]]:
        known = {p.name for p in self.packages}
        return (
            (name, now.version)
            for name, now in state.items()
            if isinstance(now, PackageState) and (name in known or self._tells_major(name))
        )

    def _tells_major(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in (self.major.others if self.major else ()))

    def moves(self, state: DebState) -> list[Move]:
        """As of any set; and what comes along with damaged files is installed once more at its version."""
        own, moves = {p.name for p in self.packages}, super().moves(state)
        if any(move.verb in ("upgrade", "downgrade") for move in moves):
            return moves  # which brings new files
        along = [
            Move(Package(name, now.version), "repair", _damage(now.damaged), (now.version,))
            for name, now in state.items()
            if name not in own and isinstance(now, PackageState) and now.damaged
        ]
        return [*moves, *along]

    def _damaged(self, state: DebState) -> list[str]:
        """Packages with damaged files, which are installed once more."""
        repaired = (move.package.name for move in self.moves(state) if move.verb == "repair")
        found = ((name, state[name]) for name in repaired)
        return [name for name, now in found if isinstance(now, PackageState) and now.damaged]

    def change(self, state: DebState, planned: Planned) -> Change | None:
        """As of any set; packages with damaged files have to be whole after it, too."""
        change, damaged = super().change(state, planned), self._damaged(state)
        if change is None or not damaged:
            return change
        return replace(change, done=f"{change.done} && {words('packages_are_whole', *damaged)}")

    def arguments(self, state: DebState, moves: Sequence[Move]) -> list[str]:
        """Those of ``apt-get install``. Only packages that move are named."""
        flags = ["--allow-downgrades"] if any(move.verb == "downgrade" for move in moves) else []
        flags += ["--reinstall"] if self._damaged(state) else []
        return [*flags, "--", *(self.selector(move.package) for move in moves)] if moves else []

    def installation(self, arguments: Sequence[str], stream: str) -> list[str]:  # noqa: ARG002
        return [f"apt_install {words(*arguments)}"] if arguments else []

    def preview(self, arguments: Sequence[str], stream: str, planned: Planned) -> Probe:  # noqa: ARG002
        """Ask apt-get, with the files below ``/etc/apt`` as planned."""
        ask = words("apt_preview", *arguments)
        files = [c.script for c in planned.changes if c.resource.startswith("file:/etc/apt/")]
        script = "\n".join(("with_planned_files", *files, ask)) if files else ask
        return Probe("", script, ("shell/apt_preview.sh",))

    def read_preview(self, answer: Output) -> Simulation:
        text = answer.out
        if not answer.ok:
            said = [line for line in text.splitlines() if line.startswith("E: ")] or text.splitlines()[-1:]
            why = "" if NOT_YET.search(text) else "".join(f"\napt-get now says: {line}" for line in said)
            if not text:  # apt-get was not asked, as there was no space for the planned files
                why = "".join(f"\n{line}" for line in answer.err.splitlines()[-1:])
            return Simulation(text=f"known after apply{why}\n")
        moves = [match for line in text.splitlines() if (match := LINE.match(line))]
        removed = [match for match in moves if match["verb"] == "Remv"]
        others = [match for match in moves if match["verb"] == "Inst"]
        return Simulation(
            tuple(dict.fromkeys(match["name"] for match in removed)),
            _held_by_others(text),
            "".join(f"{_words(match)}\n" for match in (*removed, *others)),
        )


def _damage(paths: Sequence[str]) -> str:
    if len(paths) > 1:
        return f", {paths[0]} and {len(paths) - 1} more of its files are not as they came"
    return f", {paths[0]} is not as it came"


def _words(match: re.Match[str]) -> str:
    name, old, new = match["name"], match["old"], match["new"]
    if match["verb"] == "Remv":
        return f"remove {name} {old or ''}".rstrip()
    if not old:
        return f"install {name} {new}"
    if not new or old == new:
        return f"reinstall {name} {old}"
    verb = "upgrade" if Version(new) > Version(old) else "downgrade"
    return f"{verb} {name} {old} → {new}"


def _held_by_others(text: str) -> tuple[str, ...]:
    """The names below ``The following held packages will be changed:``, which are indented."""
    ours = {line.removeprefix("ours ") for line in text.splitlines() if line.startswith("ours ")}
    _, _, rest = text.partition("The following held packages will be changed:\n")
    lines = itertools.takewhile(lambda line: line.startswith(" "), rest.splitlines())
    return tuple(name for line in lines for name in line.split() if name.partition(":")[0] not in ours)


def left_alone(name: str, prefixes: Sequence[str]) -> File:
    """The file that keeps unattended-upgrades from packages whose names begin with one of ``prefixes``.

    The lists of all files of ``/etc/apt/apt.conf.d`` add up, so the distribution's own list stays in force.
    Entries are regular expressions, which unattended-upgrades(8) matches at the beginning of a name.

    :param name: what the packages are, for the file's name.
    """
    # The only characters of Debian package names that mean something in a regular expression.
    escaped = (prefix.replace(".", "[.]").replace("+", "[+]") for prefix in prefixes)
    entries = "".join(f'  "{prefix}";\n' for prefix in escaped)
    text = f"Unattended-Upgrade::Package-Blacklist {{\n{entries}}};\n"
    return File(f"/etc/apt/apt.conf.d/60provision-{name}", text.encode())
