"""RPM packages at wanted versions and module streams, installed together, locked; and what dnf would do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import Planned
from provision.resources.packages.sets import Move, Package, PackageSet, Simulation, refuse_damaged_list
from provision.shell import constant

DNF = "shell/dnf.sh"
STATE = "shell/dnf_state.sh"

PLUGIN = constant(STATE, "lock_plugin")
"""The package that makes dnf heed the locks."""

NOT_YET = re.compile(r"Unable to find a match|no enabled repositories")
"""What dnf says where an earlier step of the plan, or fresh metadata, has to come first."""

SECTION = re.compile(r"(Install|Upgrad|Downgrad|Reinstall|Remov)ing\b[^:]*:$", re.ASCII)
"""The head of a part of dnf's table: ``Installing dependencies:``, ``Removing dependent packages:``."""


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
    joint: ClassVar[str] = "-"
    checks: ClassVar[tuple[str, str, str]] = ("rpm_is", "rpm_at_least", "rpm_locked")
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
        return Probe("rpm-packages", words("rpm_states", modules, *names), (STATE,), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[RpmPackages], answer: Output) -> Mapping[str, RpmState]:
        """The state of each set.

        :raises ValueError: if rpm itself failed.
        :raises Refusal: if our list of holds is damaged.
        """
        refuse_damaged_list(answer)
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
        enabled = streams(lines.get("module", ()))
        return {
            r.id: RpmState(
                {name: instances for name, instances in installed.items() if r._knows(name)},
                tuple(lock for lock in locks if lock and not lock.startswith(("#", "!"))),
                frozenset(lines.get("ours", ())),
                enabled.get(r.module, ""),
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

    def move(self, package: Package, state: RpmState) -> Move | None:
        """What has to happen to a package that is missing, at another version, or there more than once."""
        installed = state.of(package)
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
        verb = "upgrade" if package.is_newer_than(old[0]) else "downgrade"
        return Move(package, verb, f" from {old[0]}", old)

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

    def arguments(self, state: RpmState, moves: Sequence[Move]) -> list[str]:
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
        """Ask dnf, with our own locks lifted."""
        return Probe("", words("dnf_preview", stream, *arguments), ("shell/dnf_preview.sh",))

    def read_preview(self, answer: Output) -> Simulation:
        """Read dnf's answer; it exits with 1 whatever it says."""
        text = answer.out
        if "Dependencies resolved." not in text and "Nothing to do." not in text:
            wrong = [line for line in text.splitlines() if line.startswith(("Error:", " Problem", "  - "))]
            said = [line.strip() for line in wrong if line.strip() != "Error:"]
            why = "" if NOT_YET.search(text) else "".join(f"dnf now says: {line}\n" for line in said)
            return Simulation(text=f"known after apply\n{why}")
        rows = _rows(text)
        removed = dict.fromkeys(fields[0] for verb, fields in rows if verb == "remove")
        lines = [" ".join((verb, fields[0], *fields[2:3])) for verb, fields in rows]
        lines.sort(key=lambda line: not line.startswith("remove "))
        return Simulation(tuple(removed), text="".join(f"{line}\n" for line in lines))

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


def _rows(text: str) -> list[tuple[str, list[str]]]:
    """Verb and columns (name, architecture, version, …) of every row of the table.

    Long rows go on in the next line, which is indented deeper.
    """
    verb = ""
    rows: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if head := SECTION.match(line):
            verb = {"Install": "install", "Reinstall": "reinstall", "Remov": "remove"}.get(
                head[1], head[1].lower() + "e"
            )
        elif not line.startswith(" "):
            verb = ""
        elif verb and line.startswith("     replacing "):
            name, _, architecture = line.split()[1].rpartition(".")
            rows.append(("remove", [name, architecture, *line.split()[2:]]))
        elif verb and line.startswith("  ") and rows:
            rows[-1][1].extend(line.split())
        elif verb:
            rows.append((verb, line.split()))
    return rows


def streams(lines: Iterable[str]) -> dict[str, str]:
    """The enabled stream of each module, from the lines of dnf's files."""
    modules: dict[str, dict[str, str]] = {}
    module = ""
    for line in lines:
        if line.startswith("["):
            module = line.strip("[] ")
        elif "=" in line:
            key, _, value = line.partition("=")
            modules.setdefault(module, {})[key.strip()] = value.strip()
    return {name: keys.get("stream", "") for name, keys in modules.items() if keys.get("state") == "enabled"}
