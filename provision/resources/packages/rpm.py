"""RPM packages at wanted versions, from the wanted module stream, installed together and locked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import Planned
from provision.resources.packages import dnf
from provision.resources.packages.sets import Move, Package, PackageSet, Simulation
from provision.shell import constant

DNF = "shell/dnf.sh"
STATE = "shell/dnf_state.sh"

PLUGIN = constant(STATE, "lock_plugin")
"""The package that makes dnf heed the locks."""


@dataclass(frozen=True)
class Installed:
    """One installed instance of a package; of kernel packages there are several side by side."""

    epoch: str
    version: str
    release: str

    @property
    def text(self) -> str:
        """As people write it: version and release."""
        return f"{self.version}-{self.release}"

    def matches(self, package: Package) -> bool:
        """Whether it is right: the version may be wanted with or without release and epoch."""
        plain = (self.version, self.text)
        return any(package.accepts(form) for form in (*plain, *(f"{self.epoch}:{form}" for form in plain)))


@dataclass(frozen=True)
class RpmState:
    """What rpm and dnf know of a set.

    :ivar installed: instances by name.
    :ivar locks: lines of the versionlock list.
    :ivar ours: packages whose locks are ours.
    :ivar stream: the enabled stream of the set's module; empty without one.
    """

    installed: Mapping[str, tuple[Installed, ...]]
    locks: tuple[str, ...] = ()
    ours: frozenset[str] = frozenset()
    stream: str = ""

    def of(self, package: Package) -> tuple[Installed, ...]:
        """The installed instances of a package."""
        return self.installed.get(package.name, ())


@dataclass(frozen=True)
class RpmPackages(PackageSet[RpmState]):
    """Packages that one dnf transaction installs; their holds are locks of dnf's plugin.

    :ivar stream: ``MODULE:STREAM`` that has to be enabled, such as ``nvidia-driver:580-open``.
    """

    stream: str = ""
    shell: tuple[str, ...] = (DNF,)
    kind: ClassVar[str] = "rpm-packages"
    manager: ClassVar[str] = "dnf"
    unheld: ClassVar[str] = "not locked"
    unhold: ClassVar[str] = "dnf versionlock delete"
    checks: ClassVar[tuple[str, str]] = ("rpm_is", "rpm_locked")
    holder: ClassVar[str] = "lock_rpms"

    @property
    def module(self) -> str:
        """The name of the module whose stream counts; empty without one."""
        return self.stream.partition(":")[0]

    @classmethod
    def probe(cls, resources: Sequence[RpmPackages]) -> Probe:
        """Ask rpm for every package of every set at once; locks and streams are files."""
        names = sorted({PLUGIN, *(name for r in resources for name in r.names)})
        modules = " ".join(sorted({r.module for r in resources if r.module}))
        return Probe("rpm-packages", words("rpm_states", modules, *names), (STATE,))

    @classmethod
    def states(cls, resources: Sequence[RpmPackages], answer: Output) -> Mapping[str, RpmState]:
        """The state of each set.

        :raises ValueError: if rpm itself failed.
        """
        if answer.exit_code != 0:
            raise ValueError(f"rpm: exit {answer.exit_code}: {answer.err.strip()}")
        lines: dict[str, list[str]] = {}
        for line in answer.out.splitlines():
            what, _, rest = line.partition(" ")
            lines.setdefault(what, []).append(rest)
        native = (*lines["machine"], "noarch")
        installed: dict[str, tuple[Installed, ...]] = {}
        for row in lines.get("rpm", ()):
            name, epoch, version, release, architecture = row.split("\t")
            if architecture in native:
                installed[name] = (*installed.get(name, ()), Installed(epoch, version, release))
        locks = [line.strip() for line in lines.get("lock", ())]
        streams = dnf.streams(lines.get("module", ()))
        return {
            r.id: RpmState(
                {name: instances for name, instances in installed.items() if r._knows(name)},
                tuple(lock for lock in locks if lock and not lock.startswith(("#", "!"))),
                frozenset(lines.get("ours", ())),
                streams.get(r.module, ""),
            )
            for r in resources
        }

    def _knows(self, name: str) -> bool:
        return any(fnmatchcase(name, known) for known in (PLUGIN, *self.names))

    def bare(self) -> RpmState:
        return RpmState({})

    def switch(self, state: RpmState) -> tuple[str, str]:
        """The stream, where another one or none is enabled."""
        if self.stream == f"{self.module}:{state.stream}" or not self.stream:
            return "", ""
        return self.stream, f"module {self.module}: stream {state.stream or 'none'} → {self.stream}"

    def moves(self, state: RpmState) -> list[Move]:
        """What has to happen to packages that are missing, at another version, or there more than once."""
        moves = (_move(package, state.of(package)) for package in self.packages)
        return [move for move in moves if move]

    def held(self, package: Package, state: RpmState) -> bool:
        """Whether dnf heeds a lock at the installed version, whoever wanted that."""
        return PLUGIN in state.installed and any(
            _accepts(lock, package.name, one) for lock in state.locks for one in state.of(package)
        )

    def foreign_hold(self, package: Package, state: RpmState) -> str:
        """The version of the lock that somebody else made; empty without one."""
        if package.name in state.ours:
            return ""
        lock = next((lock for lock in state.locks if _locks(lock, package.name, state.of(package))), "")
        return lock.removeprefix(f"{package.name}-")

    def versions(self, state: RpmState) -> Iterable[tuple[str, str]]:
        """Name and version of every installed instance, the plugin's left out."""
        return ((n, one.version) for n, ones in state.installed.items() if n != PLUGIN for one in ones)

    def selector(self, package: Package) -> str:
        """``NAME-VERSION``."""
        return package.name if package.version is None else f"{package.name}-{package.version}"

    def arguments(self, state: RpmState, action: str, moves: Sequence[Move]) -> list[str]:  # noqa: ARG002
        """Packages that move, and the plugin where it is missing and locks have to be heeded."""
        plugin = [PLUGIN] if self.hold and PLUGIN not in state.installed else []
        return [*plugin, *(self.selector(move.package) for move in moves)]

    def installation(self, arguments: Sequence[str], stream: str) -> list[str]:
        """One transaction of dnf, which is also what enables a stream."""
        if arguments:
            names = " ".join(p.name for p in self.packages)
            return [f"dnf_install {words(stream, names, *arguments)}"]
        return [f"switch_stream {quote(stream)}"] if stream else []

    def preview(self, arguments: Sequence[str], stream: str, planned: Planned) -> Probe:  # noqa: ARG002
        """Ask dnf."""
        return dnf.preview(arguments, stream)

    def read_preview(self, answer: Output) -> Simulation:
        """Read dnf's answer."""
        return dnf.read(answer.out)

    def proofs(self) -> list[str]:
        """The stream before the versions."""
        stream = [f"stream_is {words(*self.stream.split(':', 1))}"] if self.stream else []
        return [*stream, *super().proofs()]


def _locks(lock: str, name: str, installed: Sequence[Installed]) -> bool:
    """Whether a line of the list is about a package: by its name, or by a pattern that it matches."""
    return lock.rsplit("-", 2)[0] == name or any(_accepts(lock, name, one) for one in installed)


def _accepts(lock: str, name: str, one: Installed) -> bool:
    forms = (f"{name}-{one.epoch}:{one.text}", f"{name}-{one.text}", f"{one.epoch}:{name}-{one.text}")
    return any(fnmatchcase(f"{form}.noarch", lock) or fnmatchcase(form, lock) for form in forms)


def _move(package: Package, installed: Sequence[Installed]) -> Move | None:
    if not installed:
        return Move(package, "install", ", it is not installed")
    old = tuple(one.text for one in installed)
    right = any(one.matches(package) for one in installed)
    if package.name.startswith("kernel"):
        return None if right else Move(package, "install", f", beside {' '.join(old)}")
    if len(old) > 1:
        return Move(package, "repair", f", {' and '.join(old)} are installed", old)
    if right:
        return None
    newer = dnf.compare((package.version or "").rpartition(":")[2].rstrip("*"), old[0]) > 0
    return Move(package, "upgrade" if newer else "downgrade", f" from {old[0]}", old)
